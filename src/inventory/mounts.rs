//! Finds the file systems whose files may make a lookup wait for a server that does not answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Returns the devices of the network and FUSE file systems that the process with this folder in /proc has
/// mounted, in the kernel's encoding (`s_dev`); /proc/PID/mountinfo. The root file system is not among them: it
/// answered when the process was started.
pub(super) fn remote_devices(process: &Path) -> BTreeSet<u32> {
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    devices(&mounts)
}

fn devices(mounts: &str) -> BTreeSet<u32> {
    let mut devices = BTreeSet::new();
    let mut roots = BTreeSet::new();
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ').skip(2);
        let (Some(device), _, Some(point)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let numbers = device.split_once(':');
        let device = numbers.and_then(|(major, minor)| {
            let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            Some(major << 20 | minor)
        });
        if point == "/" {
            roots.extend(device);
        } else if is_remote(kind.split(' ').next().unwrap_or_default()) {
            devices.extend(device);
        }
    }
    &devices - &roots
}

fn is_remote(kind: &str) -> bool {
    let family = kind.split('.').next().unwrap_or_default();
    matches!(
        family,
        "afs" | "ceph" | "cifs" | "coda" | "fuse" | "fuseblk" | "lustre" | "nfs" | "nfs4" | "smb3"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_fuse_file_systems_are_remote_unless_they_are_the_root() {
        let mounts = "\
21 1 0:20 / / rw,relatime shared:1 - fuse.fuse-overlayfs overlay rw
22 21 0:21 / /run rw,nosuid - tmpfs tmpfs rw
23 21 0:52 / /mnt/a\\040b rw shared:2 master:3 - nfs4 server:/ rw
24 21 1:300 / /home rw - fuse.sshfs host: rw
25 21 0:20 / /root rw - fuse.fuse-overlayfs overlay rw
broken
";
        assert_eq!(devices(mounts), BTreeSet::from([52, 0x0010_012c]));
    }
}
