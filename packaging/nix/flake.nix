# nix build '.?dir=packaging/nix'
{
  description = "Send and receive Unix datagrams from the shell";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = nixpkgs.lib.genAttrs systems;
    in
    {
      packages = each (system: rec {
        udgram = nixpkgs.legacyPackages.${system}.callPackage ./package.nix { };
        default = udgram;
      });
    };
}
