//! A Rust compiler for other systems, made of Debian's packages.
//!
//! The compiler that a developer has brings no standard library for other systems, and Debian has
//! none either. But Debian has a second compiler (rustc-web, for its browsers) with the sources that
//! belong to it, and what a compiler has the sources of it can compile. So its packages are unpacked
//! in a directory of ours, and its standard library is compiled into that, once for each system.
//! Nothing is installed but the libraries that it needs, and nobody else uses it.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use super::Target;
use crate::{
    packages::{Needed, apt_get, install, install_packages, is_there, update},
    run::{Result, cargo, is_root, output, run},
};

/// Counts up when what is made here changes, so that it is made again.
const RECIPE: u32 = 1;

const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";

/// What is unpacked, besides the library that [`LIBRARY`] is the door to.
const PACKAGES: [&str; 4] = [COMPILER, "rust-web-clippy", "rust-web-src", LIBRARY];

/// What the compiler makes the import libraries of Windows with.
const DLLTOOL: Needed = ("x86_64-w64-mingw32-dlltool", "binutils-mingw-w64-x86-64");

/// The toolchain, in its directory.
pub(super) struct Toolchain {
    home: PathBuf,
    /// Two processes at once would spoil each other's work. Released with the file.
    _lock: File,
}

impl Toolchain {
    /// Makes the toolchain if it is missing, or if Debian has a newer one. It has no library for any
    /// other system then.
    ///
    /// # Errors
    /// If it cannot be made, with what to do about it.
    pub(super) fn ready() -> Result<Self> {
        let home = home()?;
        let within = |error| format!("{}: {error}", home.display());
        fs::create_dir_all(&home).map_err(within)?;
        let lock = File::create(home.join("lock")).map_err(within)?;
        lock.lock().map_err(within)?;
        let toolchain = Self { home, _lock: lock };
        if !toolchain.is_current() {
            toolchain.unpack()?;
        }
        toolchain.see_that_it_runs()?;
        Ok(toolchain)
    }

    /// Clippy of this toolchain, run by the developer's cargo.
    pub(super) fn clippy(&self) -> Command {
        let mut clippy = Command::new(self.usr().join("bin/cargo-clippy"));
        clippy.arg("clippy").current_dir(crate::run::root());
        self.used_by(clippy)
    }

    /// Compiles the standard library for a system, unless that was done before.
    ///
    /// # Errors
    /// If it does not compile.
    pub(super) fn add(&self, target: Target) -> Result {
        let library = self.usr().join("lib/rustlib").join(target.triple());
        if library.is_dir() {
            return Ok(());
        }
        if target == Target::Windows {
            install(&[DLLTOOL])?;
        }
        let name = target.triple();
        eprintln!("compiling the standard library for {name}: takes a minute or two, once");
        let scratch = self.home.join("scratch");
        let built = self.build_library(target, &scratch)?;
        let fresh = scratch.join("library");
        io_at(&fresh, |fresh| copy_libraries(&built, &fresh.join("lib")))?;
        // Only what is complete gets its name.
        io_at(&library, |library| fs::rename(&fresh, library))?;
        io_at(&scratch, fs::remove_dir_all)
    }

    /// Compiles the library for an empty crate; returns where it is.
    fn build_library(&self, target: Target, scratch: &Path) -> Result<PathBuf> {
        io_at(scratch, |scratch| {
            remove(scratch)?;
            fs::create_dir_all(scratch.join("src"))?;
            fs::write(scratch.join("src/lib.rs"), "")?;
            fs::write(scratch.join("Cargo.toml"), EMPTY_CRATE)
        })?;
        let mut build = cargo(&["build", "--quiet", "--release"]);
        build
            .arg("-Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test")
            .args(["--target", target.triple()])
            .current_dir(scratch)
            .env("CARGO_TARGET_DIR", scratch.join("target"))
            // The library may use what is not stable, and so it must be cargo's to ask for it.
            .env("RUSTC_BOOTSTRAP", "1");
        run(&mut self.used_by(build))?;
        Ok(scratch
            .join("target")
            .join(target.triple())
            .join("release/deps"))
    }

    /// Sees to it that what `directory` has was compiled by this toolchain and by no other.
    ///
    /// # Errors
    /// If the directory cannot be made, or what is in it not removed.
    pub(super) fn claim(&self, directory: &Path) -> Result {
        let mark = directory.join("toolchain");
        let stamp = io_at(&self.stamp(), fs::read_to_string)?;
        if fs::read_to_string(&mark).is_ok_and(|it| it == stamp) {
            return Ok(());
        }
        io_at(directory, |directory| {
            remove(directory)?;
            fs::create_dir_all(directory)?;
            fs::write(&mark, &stamp)
        })
    }

    fn usr(&self) -> PathBuf {
        self.home.join("root/usr")
    }

    fn stamp(&self) -> PathBuf {
        self.home.join("version")
    }

    /// A toolchain of which nobody knows whether there is a newer one is good enough.
    fn is_current(&self) -> bool {
        let Ok(stamp) = fs::read_to_string(self.stamp()) else {
            return false;
        };
        match candidate() {
            Some(version) => stamp.starts_with(&recipe_of(&version)),
            None => true,
        }
    }

    /// Downloads and unpacks Debian's packages, in place of older ones.
    fn unpack(&self) -> Result {
        if !is_there("apt-get") {
            return Err(
                "the toolchain for other systems is made of Debian's packages, and this \
                        is not Debian\n  what to do: run it on Debian 12 or later"
                    .to_owned(),
            );
        }
        if is_root() {
            update()?;
        }
        let version = candidate().ok_or_else(|| {
            format!(
                "Debian's package {COMPILER} is not to be found\n  \
                 what to do: sudo apt-get update, with the security updates among the sources"
            )
        })?;
        eprintln!("unpacking the compiler for other systems ({COMPILER} {version})");
        let (packages, root) = (self.home.join("packages"), self.home.join("root"));
        io_at(&self.home, |_| {
            remove(&self.stamp())?;
            remove(&packages)?;
            remove(&root)?;
            fs::create_dir_all(&packages)
        })?;
        let mut download = apt_get();
        // It would say that the user it downloads as cannot write here, and go on as root.
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
        run(download.args(all_packages()?).current_dir(&packages))?;
        for package in io_at(&packages, files)? {
            run(Command::new("dpkg").arg("-x").arg(package).arg(&root))?;
        }
        io_at(&self.home, |_| {
            remove(&packages)?;
            fs::write(self.stamp(), stamp_of(&version, SystemTime::now()))
        })
    }

    /// The compiler may lack libraries: on a machine that is new, but for this directory.
    fn see_that_it_runs(&self) -> Result {
        let runs = || {
            let mut version = self.used_by(Command::new(self.rustc()));
            version.arg("--version").output()
        };
        if runs().is_ok_and(|it| it.status.success()) {
            return Ok(());
        }
        let libraries = libraries()?;
        install_packages(&libraries.iter().map(String::as_str).collect::<Vec<_>>())?;
        match runs() {
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).into_owned()),
            Err(error) => Err(format!("{}: {error}", self.rustc().display())),
        }
    }

    fn rustc(&self) -> PathBuf {
        self.usr().join("bin/rustc")
    }

    /// Has a command use this compiler and its libraries.
    fn used_by(&self, mut command: Command) -> Command {
        command
            .env("RUSTC", self.rustc())
            .env("LD_LIBRARY_PATH", self.shared_libraries())
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        command
    }

    /// Debian's directory for this machine's architecture.
    fn shared_libraries(&self) -> PathBuf {
        let libraries = self.usr().join("lib");
        let mut all = files(&libraries).unwrap_or_default().into_iter();
        let found = all.find(|it| it.to_string_lossy().ends_with("-linux-gnu"));
        found.unwrap_or(libraries)
    }
}

const EMPTY_CRATE: &str = "\
[package]
name = \"empty\"
edition = \"2024\"

[workspace]
";

/// Where the toolchain lives: with what may be deleted and is made again.
fn home() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|it: &OsString| !it.is_empty());
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
    let cache = cache.ok_or("HOME is not set: there is no place for the toolchain")?;
    Ok(cache.join("openclat/cross"))
}

/// What the toolchain is made from, and how.
fn recipe_of(version: &str) -> String {
    format!("{COMPILER} {version}, recipe {RECIPE}\n")
}

/// Tells a toolchain from one that was made later from the same: what they compile does not fit
/// together, and cargo does not see it.
fn stamp_of(version: &str, made: SystemTime) -> String {
    let since = made.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    format!("{}made at {seconds}\n", recipe_of(version))
}

/// The version that Debian has now, as far as this machine knows.
fn candidate() -> Option<String> {
    let policy = output(apt_cache().args(["policy", COMPILER])).ok()?;
    let mut lines = policy.lines();
    let version = lines.find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// What knows the packages; in the language that is read here.
fn apt_cache() -> Command {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
}

/// The packages to unpack.
fn all_packages() -> Result<Vec<String>> {
    // Its name has the version in it.
    let mut behind = dependencies(LIBRARY)?;
    behind.retain(|it| it.starts_with("libstd-rust-web-"));
    behind.extend(PACKAGES.map(str::to_owned));
    Ok(behind)
}

/// The packages that those need, and that are to be installed.
fn libraries() -> Result<Vec<String>> {
    let unpacked = all_packages()?;
    let mut needed = Vec::new();
    for package in &unpacked {
        needed.extend(dependencies(package)?);
    }
    needed.retain(|it| !unpacked.contains(it));
    needed.sort_unstable();
    needed.dedup();
    Ok(needed)
}

fn dependencies(package: &str) -> Result<Vec<String>> {
    let said = output(apt_cache().args(["depends", package]))?;
    Ok(depended_on(&said))
}

/// The packages that stand in what `apt-cache depends` says; not those that are only names for any
/// of several.
fn depended_on(said: &str) -> Vec<String> {
    let lines = said.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_prefix("Depends: "));
    names
        .filter(|name| !name.starts_with('<'))
        .map(str::to_owned)
        .collect()
}

/// Copies the compiled libraries, but for the empty crate.
fn copy_libraries(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in files(from)? {
        let name = file.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        if text.ends_with(".rlib") && !text.starts_with("libempty-") {
            fs::copy(&file, to.join(name))?;
        }
    }
    Ok(())
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Removes a file or directory, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn io_at<'a, T>(path: &'a Path, act: impl FnOnce(&'a Path) -> io::Result<T>) -> Result<T> {
    act(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_real_packages() {
        let said = "rustc-web\n  Depends: libc6\n  Depends: <libc-dev>\n    libc6-dev\n \
                    |Depends: gcc\n  Conflicts: rustc\n  Depends: binutils\n";
        assert_eq!(depended_on(said), ["libc6", "binutils"]);
    }

    #[test]
    fn a_toolchain_is_current_while_version_and_recipe_are() {
        let stamp = stamp_of("1.96.0", SystemTime::now());
        assert!(stamp.starts_with(&recipe_of("1.96.0")));
        assert!(!stamp.starts_with(&recipe_of("1.96.1")));
        assert_ne!(stamp, stamp_of("1.96.0", SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn what_is_not_there_needs_not_be_removed() {
        let nowhere = env::temp_dir().join("openclat-cross-nowhere");
        assert!(remove(&nowhere).is_ok());
        let said = io_at(&nowhere, |it| fs::read(it).map(drop)).unwrap_err();
        assert!(said.contains("openclat-cross-nowhere: "), "{said}");
    }
}
