use std::{cell::RefCell, path::PathBuf, rc::Rc};

use plan::{Interface, Prefix, Route, Setting, Via};

use super::*;

/// A host that remembers what was asked of it.
#[derive(Clone, Default)]
struct Fake {
    log: Rc<RefCell<Vec<String>>>,
    refuse: Rc<RefCell<Option<String>>>,
    lacks: Rc<RefCell<Option<String>>>,
}

impl Fake {
    fn taken(&self) -> Vec<String> {
        self.log.borrow_mut().drain(..).collect()
    }

    fn check(&self, what: &str) -> Result<(), SystemError> {
        match &*self.refuse.borrow() {
            Some(refused) if what.contains(refused.as_str()) => Err(SystemError {
                what: what.to_owned(),
                source: io::ErrorKind::PermissionDenied.into(),
            }),
            _ => Ok(()),
        }
    }
}

impl System for Fake {
    async fn before(&mut self, item: &Item) -> Option<String> {
        matches!(item, Item::Setting(_)).then(|| "0".to_owned())
    }

    async fn make(&mut self, item: &Item) -> Result<Made, SystemError> {
        self.check(&item.to_string())?;
        if (self.lacks.borrow().as_ref()).is_some_and(|it| item.to_string().contains(it)) {
            return Ok(Made::Without("no such program".to_owned()));
        }
        self.log.borrow_mut().push(format!("+ {item}"));
        Ok(Made::Yes)
    }

    async fn unmake(&mut self, change: &Change) -> Result<(), SystemError> {
        self.check(&change.item.to_string())?;
        let before = change.before.as_deref().unwrap_or("-");
        let item = &change.item;
        self.log.borrow_mut().push(format!("- {item} ({before})"));
        Ok(())
    }
}

fn black_hole(address: &str) -> Item {
    Item::Route(Route {
        destination: Prefix::host(address.parse().unwrap()),
        via: Via::Blackhole,
        metric: None,
    })
}

fn setting(value: &str) -> Item {
    Item::Setting(Setting {
        path: "net/x".into(),
        value: value.into(),
    })
}

fn interface(mtu: u16) -> Item {
    Item::Interface(Interface {
        name: "clat0".into(),
        mtu,
    })
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("openclat-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        Self(directory)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn only_the_difference_is_changed() {
    let (directory, fake) = (Directory::new("difference"), Fake::default());
    let mut netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    let plan = Plan::new([setting("1"), black_hole("2001:db8::1"), interface(1472)]);
    netcfg.apply(&plan).await.unwrap();
    assert_eq!(
        fake.taken(),
        [
            "+ setting net/x = 1",
            "+ route to 2001:db8::1/128 into a black hole",
            "+ interface clat0 up with MTU 1472",
        ]
    );
    netcfg.apply(&plan).await.unwrap();
    assert!(fake.taken().is_empty());

    // Another address, another MTU: the old black hole goes first, the interface only changes.
    let plan = Plan::new([setting("1"), black_hole("2001:db8::2"), interface(1252)]);
    netcfg.apply(&plan).await.unwrap();
    assert_eq!(
        fake.taken(),
        [
            "- route to 2001:db8::1/128 into a black hole (-)",
            "+ route to 2001:db8::2/128 into a black hole",
            "+ interface clat0 up with MTU 1252",
        ]
    );
    netcfg.apply(&Plan::nothing()).await.unwrap();
    assert_eq!(
        fake.taken(),
        [
            "- route to 2001:db8::2/128 into a black hole (-)",
            "- interface clat0 up with MTU 1252 (-)",
            "- setting net/x = 1 (0)",
        ]
    );
    assert_eq!(std::fs::read(directory.journal()).unwrap(), b"");
}

#[tokio::test]
async fn a_changed_setting_still_knows_what_was_there_first() {
    let (directory, fake) = (Directory::new("setting"), Fake::default());
    let mut netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    netcfg.apply(&Plan::new([setting("1")])).await.unwrap();
    netcfg.apply(&Plan::new([setting("2")])).await.unwrap();
    assert_eq!(
        fake.taken(),
        [
            "+ setting net/x = 1",
            "- setting net/x = 1 (0)",
            "+ setting net/x = 2",
        ]
    );
}

#[tokio::test]
async fn a_refused_change_can_be_taken_back_with_the_rest() {
    let (directory, fake) = (Directory::new("refused"), Fake::default());
    let mut netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    *fake.refuse.borrow_mut() = Some("interface".into());
    let plan = Plan::new([black_hole("2001:db8::1"), interface(1472), setting("1")]);
    let error = netcfg.apply(&plan).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "interface clat0 up with MTU 1472: permission denied"
    );
    *fake.refuse.borrow_mut() = None;
    fake.taken();
    netcfg.apply(&Plan::nothing()).await.unwrap();
    // The change that failed may have been made in part.
    assert_eq!(
        fake.taken(),
        [
            "- interface clat0 up with MTU 1472 (-)",
            "- route to 2001:db8::1/128 into a black hole (-)",
        ]
    );
}

#[tokio::test]
async fn what_failed_is_tried_again_by_the_same_plan() {
    let (directory, fake) = (Directory::new("again"), Fake::default());
    let mut netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    netcfg.apply(&Plan::new([interface(1472)])).await.unwrap();
    *fake.refuse.borrow_mut() = Some("interface".into());
    let plan = Plan::new([interface(1252), setting("1")]);
    assert!(netcfg.apply(&plan).await.is_err());
    assert!(netcfg.apply(&plan).await.is_err());
    *fake.refuse.borrow_mut() = None;
    fake.taken();
    netcfg.apply(&plan).await.unwrap();
    assert_eq!(
        fake.taken(),
        ["+ interface clat0 up with MTU 1252", "+ setting net/x = 1"]
    );
}

#[tokio::test]
async fn what_cannot_be_taken_back_does_not_keep_the_rest() {
    let (directory, fake) = (Directory::new("stuck"), Fake::default());
    let path = directory.journal();
    let mut netcfg = NetCfg::open(fake.clone(), &path).await.unwrap();
    let plan = Plan::new([setting("1"), black_hole("2001:db8::1"), interface(1472)]);
    netcfg.apply(&plan).await.unwrap();
    fake.taken();
    *fake.refuse.borrow_mut() = Some("route".into());
    let error = netcfg.apply(&Plan::nothing()).await.unwrap_err();
    assert!(error.to_string().starts_with("route to 2001:db8::1/128"));
    assert_eq!(
        fake.taken(),
        [
            "- interface clat0 up with MTU 1472 (-)",
            "- setting net/x = 1 (0)",
        ]
    );
    // It is still known: to this process and, should it end, to the next one.
    let (_, left) = {
        drop(netcfg);
        Journal::open(&path).unwrap()
    };
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].item, black_hole("2001:db8::1"));
}

#[tokio::test]
async fn what_the_system_lacks_is_said_once_and_never_taken_back() {
    let (directory, fake) = (Directory::new("lacks"), Fake::default());
    let path = directory.journal();
    let mut netcfg = NetCfg::open(fake.clone(), &path).await.unwrap();
    *fake.lacks.borrow_mut() = Some("route".into());
    let plan = Plan::new([black_hole("2001:db8::1"), setting("1")]);
    netcfg.apply(&plan).await.unwrap();
    // Even if the system has it by now: the plan is the same.
    *fake.lacks.borrow_mut() = None;
    netcfg.apply(&plan).await.unwrap();
    netcfg.make_again().await.unwrap();
    netcfg.apply(&Plan::nothing()).await.unwrap();
    assert_eq!(
        fake.taken(),
        [
            "+ setting net/x = 1",
            "+ setting net/x = 1",
            "- setting net/x = 1 (0)",
        ]
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn a_replaced_interface_leaves_one_line_in_the_journal() {
    let (directory, fake) = (Directory::new("replaced"), Fake::default());
    let path = directory.journal();
    let mut netcfg = NetCfg::open(fake.clone(), &path).await.unwrap();
    for mtu in [1472, 1252, 1480] {
        netcfg
            .apply(&Plan::new([setting("1"), interface(mtu)]))
            .await
            .unwrap();
    }
    drop(netcfg);
    let (_, left) = Journal::open(&path).unwrap();
    let left: Vec<_> = left.into_iter().map(|it| it.item).collect();
    assert_eq!(left, [setting("1"), interface(1480)]);
}

#[tokio::test]
async fn nothing_is_made_that_cannot_be_recorded() {
    let (directory, fake) = (Directory::new("unwritable"), Fake::default());
    let mut netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    netcfg.journal = Journal::full();
    let error = netcfg.apply(&Plan::new([setting("1")])).await.unwrap_err();
    assert!(matches!(error, Error::Journal(JournalError::Io { .. })));
    assert!(fake.taken().is_empty());
}

#[tokio::test]
async fn a_successor_takes_back_what_a_crash_left() {
    let (directory, fake) = (Directory::new("crash"), Fake::default());
    let path = directory.journal();
    let mut netcfg = NetCfg::open(fake.clone(), &path).await.unwrap();
    netcfg
        .apply(&Plan::new([setting("1"), black_hole("2001:db8::1")]))
        .await
        .unwrap();
    drop(netcfg);
    fake.taken();

    // One change cannot be taken back yet; the other is, and only the first is tried again.
    *fake.refuse.borrow_mut() = Some("setting".into());
    assert!(NetCfg::open(fake.clone(), &path).await.is_err());
    assert_eq!(
        fake.taken(),
        ["- route to 2001:db8::1/128 into a black hole (-)"]
    );
    *fake.refuse.borrow_mut() = None;
    let left = NetCfg::cleanup(fake.clone(), &path).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(fake.taken(), ["- setting net/x = 1 (0)"]);
    assert!(
        NetCfg::cleanup(fake.clone(), &path)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn two_instances_do_not_share_a_host() {
    let (directory, fake) = (Directory::new("twice"), Fake::default());
    let _netcfg = NetCfg::open(fake.clone(), &directory.journal())
        .await
        .unwrap();
    let error = NetCfg::open(fake, &directory.journal())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Journal(JournalError::InUse { .. })));
}

/// What is there in this namespace is not what the journal tells of.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_taken_back_in_another_network() {
    let (directory, fake) = (Directory::new("elsewhere"), Fake::default());
    let path = directory.journal();
    let mut netcfg = NetCfg::open(fake.clone(), &path).await.unwrap();
    netcfg.apply(&Plan::new([setting("1")])).await.unwrap();
    drop(netcfg);
    fake.taken();
    let text = std::fs::read_to_string(&path).unwrap();
    let here = place::Place::here().unwrap().network;
    let elsewhere = text.replace(&here, "net:[7]");
    std::fs::write(&path, &elsewhere).unwrap();
    let refused = [
        NetCfg::open(fake.clone(), &path).await.err().unwrap(),
        NetCfg::cleanup(fake.clone(), &path).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(
            error,
            Error::Journal(JournalError::Elsewhere { .. })
        ));
        let said = error.to_string();
        assert!(said.contains("net:[7]") && said.contains(&here), "{said}");
        assert!(error.hint().is_some_and(|it| it.contains("nsenter")));
    }
    assert!(fake.taken().is_empty());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), elsewhere);
    // Of an earlier start of the machine nothing is left, wherever it was.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(elsewhere.contains(boot.trim()), "{elsewhere}");
    std::fs::write(&path, elsewhere.replace(boot.trim(), "before")).unwrap();
    let left = NetCfg::cleanup(fake.clone(), &path).await.unwrap();
    assert!(left.is_empty() && fake.taken().is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}
