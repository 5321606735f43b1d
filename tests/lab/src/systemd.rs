//! A machine whose first process is systemd, with its own processes, mounts and control groups, in
//! the network of a namespace. It has the programs of this machine and, as /usr/bin/plat, ours.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{
    eventually,
    namespace::Namespace,
    process::{Daemon, Ran, command},
    scratch::Scratch,
    topology::program,
};

/// Long enough for a machine without services, also on a busy one.
const BOOTED: Duration = Duration::from_secs(60);

/// Joins a control group of its own, so that systemd has none of the host's.
const JOIN: &str = r"
set -e
mount --make-rprivate /
mkdir -p $LAB/groups
mount -t cgroup2 none $LAB/groups
mkdir -p $LAB/groups/$GROUP
echo $$ > $LAB/groups/$GROUP/cgroup.procs
umount $LAB/groups
exec unshare --mount --pid --fork --kill-child=KILL --cgroup --uts --ipc sh -c '. $LAB/boot'
";

/// Lays a root directory, and becomes systemd in it.
const BOOT: &str = r#"
set -e
root=$LAB/root
mkdir -p $root
mount -t tmpfs none $root
mkdir -p $root/usr $root/etc $root/run $root/tmp $root/proc $root/sys $root/dev $root/var/log $root/old $root/over
mount -t tmpfs none $root/over
mkdir $root/over/upper $root/over/work
mount -t overlay -o lowerdir=/usr,upperdir=$root/over/upper,workdir=$root/over/work none $root/usr
for link in bin sbin lib lib64; do ln -s usr/$link $root/$link; done
cp $PLAT $root/usr/bin/plat
cp -r $LAB/etc/. $root/etc
for file in nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d; do
    test ! -e /etc/$file || cp -r /etc/$file $root/etc
done
mount -t proc none $root/proc
# Settings and devices that are not of the network are those of the whole machine.
mount --bind $root/proc/sys $root/proc/sys
mount -o remount,bind,ro $root/proc/sys
mount --bind /proc/sys/net $root/proc/sys/net
mount --bind /sys $root/sys
mount -o remount,bind,ro $root/sys
mount -t cgroup2 none $root/sys/fs/cgroup
mount --rbind /dev $root/dev
# As udev makes it.
mount -t tmpfs none $root/dev/net
mknod -m 0666 $root/dev/net/tun c 10 200
mount -t tmpfs none $root/run
mount -t tmpfs none $root/tmp
cd $root
pivot_root . old
umount -l /old
exec env -i container=lab PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd --system \
    --unit=lab.target --log-target=console --log-level=info --show-status=no
"#;

/// The machine. Everything that runs in it ends with it.
#[derive(Debug)]
pub struct Machine<'a> {
    namespace: &'a Namespace,
    outer: Daemon,
    /// Its first process, as this machine numbers it.
    first: u32,
    group: String,
    directory: Scratch,
}

impl<'a> Machine<'a> {
    /// Starts it with these files under /etc, and waits until it is up.
    ///
    /// # Panics
    /// If it does not come up: as a rule, because there is no systemd.
    #[must_use]
    pub fn boot(namespace: &'a Namespace, files: &[(&str, &str)]) -> Self {
        let directory = Scratch::new("systemd").expect("a directory");
        // Nothing but itself: no devices, no mounts, no settings of the kernel.
        let target = "[Unit]\nDescription=The lab\nDefaultDependencies=no\n";
        let passwd =
            "root:x:0:0::/root:/bin/sh\nopenclat-plat:x:65533:65533::/:/usr/sbin/nologin\n";
        let group = "root:x:0:\nopenclat-plat:x:65533:\n";
        let own = [
            ("systemd/system/lab.target", target),
            ("systemd/system/sysinit.target", target),
            ("systemd/system/basic.target", target),
            ("systemd/system/network-online.target", target),
            ("passwd", passwd),
            ("group", group),
            ("machine-id", ""),
        ];
        for (name, text) in own.iter().chain(files) {
            write(&directory.path().join("etc").join(name), text).expect("a file");
        }
        write(&directory.path().join("boot"), BOOT).expect("a file");
        let group = directory
            .path()
            .file_name()
            .map(|it| it.to_string_lossy().into_owned());
        let group = group.unwrap_or_default();
        let mut shell = command("unshare");
        shell
            .args(["--mount", "sh", "-c", JOIN])
            .env("LAB", directory.path())
            .env("PLAT", program("plat"))
            .env("GROUP", &group);
        let outer = Daemon::start(namespace, "systemd", shell).expect("unshare starts");
        let mut machine = Self {
            namespace,
            outer,
            first: 0,
            group,
            directory,
        };
        let is_up = eventually(BOOTED, || machine.is_up());
        assert!(
            is_up,
            "systemd does not come up:\n{}",
            machine.outer.output()
        );
        machine
    }

    fn is_up(&mut self) -> bool {
        let children = format!("ps -o pid= --ppid {}", self.outer.pid());
        let first = self.namespace.sh(&children).stdout.trim().parse();
        let Ok(first) = first else {
            return false;
        };
        self.first = first;
        self.sh("systemctl is-active lab.target").ok()
    }

    /// Runs a shell command line in the machine to its end.
    #[must_use]
    pub fn sh(&self, line: &str) -> Ran {
        let mut inside = command("nsenter");
        inside
            .args(["--target", &self.first.to_string()])
            .args([
                "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd",
            ])
            .args(["--", "/bin/sh", "-c", line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.namespace.start(inside).expect("nsenter starts");
        child.wait_with_output().expect("sh ends").into()
    }

    /// Runs a shell command line that must succeed; its standard output.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn must(&self, line: &str) -> String {
        let ran = self.sh(line);
        assert!(
            ran.ok(),
            "`{line}` failed: {ran:?}\n{}",
            self.outer.output()
        );
        ran.stdout
    }

    /// A property of a unit, as systemd sees it.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let line = format!("systemctl show --value -p {name} {unit}");
        self.must(&line).trim().to_owned()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // Whoever made the first process takes it along.
        self.outer.signal(nix::sys::signal::Signal::SIGKILL);
        let mount = PathBuf::from(self.directory.path()).join("groups");
        let group = mount.join(&self.group);
        let line = format!(
            "mount -t cgroup2 none {} && find {} -depth -type d -exec rmdir {{}} +",
            mount.display(),
            group.display()
        );
        // Its processes end one after another.
        eventually(Duration::from_secs(5), || {
            self.namespace
                .sh(&format!("unshare --mount sh -c '{line}'"))
                .ok()
        });
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}
