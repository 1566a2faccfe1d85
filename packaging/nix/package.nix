# The derivation of udgram. The version and the dependencies are those of Cargo.toml and Cargo.lock.
{ lib, rustPlatform, installShellFiles }:

let
  manifest = lib.importTOML ../../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  version = manifest.package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];

  # The other tests need daemons, shells and name spaces that the sandbox has not.
  cargoTestFlags = [ "--lib" ];

  postInstall = ''
    installManPage man/*.1 man/*.7
    installShellCompletion completions/{udgram.bash,_udgram,udgram.fish}
    install -D -m 644 -t $out/share/doc/udgram README.md BENCHMARKS.md CHANGELOG.md
    install -D -m 644 -t $out/share/doc/udgram/docs docs/*.md docs/*.svg
    install -D -m 644 -t $out/share/doc/udgram/examples packaging/systemd/* examples/*.rs
  '';

  meta = {
    description = manifest.package.description;
    license = with lib.licenses; [ mit asl20 ];
    platforms = lib.platforms.linux;
    mainProgram = "udgram";
  };
}
