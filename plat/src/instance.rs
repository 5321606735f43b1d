//! Several NAT64s on one host: each instance has a name, and by it its own configuration, virtual
//! interface and state.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use cli::{Failure, text::is_interface_name};

use crate::config::{self, Config, Loaded};

/// The name of an instance. With `plat-` before it, it is that of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let usual = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !name.is_empty() && name.chars().all(usual) && is_interface_name(&interface(name)) {
            return Ok(Self(name.to_owned()));
        }
        Err("use up to 10 letters, digits, dashes and underscores")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn interface(name: &str) -> String {
    format!("plat-{name}")
}

/// Which NAT64 of this host is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Instance {
    /// One of several on this host: its configuration is /etc/openclat/plat@NAME.toml, its
    /// interface plat-NAME, its state in /run/openclat/plat@NAME
    #[arg(long, value_name = "NAME")]
    instance: Option<Name>,
}

impl Instance {
    /// `plat` or `plat@NAME`, as its files and its unit are called.
    fn title(&self) -> String {
        match &self.instance {
            Some(name) => format!("plat@{name}"),
            None => "plat".to_owned(),
        }
    }

    /// Where its state is, unless told otherwise. Emptied by a restart of the machine.
    pub(crate) fn state_directory(&self, said: Option<&Path>) -> PathBuf {
        let usual = || Path::new("/run/openclat").join(self.title());
        said.map_or_else(usual, Path::to_owned)
    }

    /// Where its configuration is, unless told otherwise.
    pub(crate) fn file(&self) -> PathBuf {
        Path::new("/etc/openclat").join(format!("{}.toml", self.title()))
    }

    /// Its configuration.
    ///
    /// # Errors
    /// As [`config::find`].
    pub(crate) fn load(&self, said: Option<&Path>) -> Result<Loaded, Failure> {
        let mut loaded = match said {
            Some(path) => config::find(Some(path))?,
            None => config::load(&self.file())?,
        };
        if let Some(name) = &self.instance
            && !loaded.document.origins().contains_key("interface")
        {
            loaded.config.interface = interface(&name.0);
        }
        Ok(loaded)
    }

    /// What it has in common with the other instances whose configurations lie in the same
    /// directory, a sentence each.
    pub(crate) fn conflicts(&self, said: Option<&Path>, loaded: &Loaded) -> Vec<String> {
        let own = said.map_or_else(|| self.file(), Path::to_owned);
        let mut sentences = Vec::new();
        for (path, other) in others(&own) {
            // Another that is wrong says so itself.
            if let Ok(other) = other.load(Some(&path)) {
                let with = path.display();
                let common = config::conflicts(&loaded.config, &other.config);
                sentences.extend(common.iter().map(|it| format!("{it}, as has {with}")));
            }
        }
        sentences
    }
}

/// Where an instance has its configuration, to be read once and again.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    instance: Instance,
    said: Option<PathBuf>,
}

impl Source {
    /// The file that was named, or else the instance's own.
    pub(crate) fn new(instance: Instance, said: Option<PathBuf>) -> Self {
        Self { instance, said }
    }

    /// The name of the instance, for labels; the one without a name is `default`.
    pub(crate) fn instance(&self) -> String {
        let name = self.instance.instance.as_ref();
        name.map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    /// Reads it, and warns of what other instances have, too.
    ///
    /// # Errors
    /// As [`config::find`].
    pub(crate) fn read(&self) -> Result<Config, Failure> {
        let said = self.said.as_deref();
        let loaded = self.instance.load(said)?;
        for common in self.instance.conflicts(said, &loaded) {
            tracing::warn!("{common}");
        }
        Ok(loaded.config)
    }
}

/// The configurations of the other instances.
fn others(own: &Path) -> Vec<(PathBuf, Instance)> {
    let entries = own.parent().and_then(|it| std::fs::read_dir(it).ok());
    let paths = entries.into_iter().flatten().flatten().map(|it| it.path());
    let mut found: Vec<_> = paths
        .filter(|path| path != own && path.extension().is_some_and(|it| it == "toml"))
        .filter_map(|path| {
            let title = path.file_stem()?.to_str()?;
            let instance = match title.strip_prefix("plat@") {
                Some(name) => Some(name.parse().ok()?),
                None if title == "plat" => None,
                None => return None,
            };
            Some((path, Instance { instance }))
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Instance {
        Instance {
            instance: Some(name.parse().unwrap()),
        }
    }

    #[test]
    fn an_instance_has_places_of_its_own() {
        let lab = named("lab");
        let place = |it: PathBuf| it.display().to_string();
        assert_eq!(place(lab.file()), "/etc/openclat/plat@lab.toml");
        assert_eq!(place(lab.state_directory(None)), "/run/openclat/plat@lab");
        let first = Instance::default();
        assert_eq!(place(first.file()), config::DEFAULT_FILE);
        assert_eq!(place(first.state_directory(None)), "/run/openclat/plat");
        let said = Some(Path::new("/x"));
        assert_eq!(place(lab.state_directory(said)), "/x");
        for wrong in ["", "../x", "a/b", "a.b", "eleven-long", "a b", "é"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        assert!("ten-lettrs".parse::<Name>().is_ok());
    }

    #[test]
    fn what_two_instances_have_in_common_is_said() {
        let directory = std::env::temp_dir().join(format!("openclat-inst-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let a = write(
            "plat@a.toml",
            "prefixes = [\"2001:db8:a::/96\"]\npool = [\"203.0.113.0/28\"]",
        );
        write("plat@b.toml", "pool = [\"203.0.113.4-203.0.113.9\"]");
        write("plat.toml", "prefixes = [\"2001:db8:a::/96\"]");
        write("plat@c.toml", "this is no TOML");
        write("clat.toml", "prefix = \"64:ff9b::/96\"");
        let instance = named("a");
        let loaded = instance.load(Some(&a)).unwrap();
        assert_eq!(loaded.config.interface, "plat-a");
        let said = instance.conflicts(Some(&a), &loaded);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("it serves 2001:db8:a::/96") && said[0].ends_with("plat.toml"));
        assert!(
            said[1].starts_with("it gives out 203.0.113.0/28"),
            "{said:?}"
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
