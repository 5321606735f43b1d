//! [`Peer`]: who is at the other end.

use crate::transport;

/// Who is at the other end of a connection, by the kernel's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// The names of its groups, if they need not be looked up.
    groups: Option<Vec<String>>,
}

impl Peer {
    /// A user whose groups are looked up when they matter.
    #[must_use]
    pub fn of(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            groups: None,
        }
    }

    /// The same with groups of these names, and no others.
    #[must_use]
    pub fn with_groups(mut self, groups: &[&str]) -> Self {
        self.groups = Some(groups.iter().map(|it| (*it).to_owned()).collect());
        self
    }

    /// Whether it is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether it is of this program's own user.
    #[must_use]
    pub fn is_own_user(&self) -> bool {
        transport::own_uid() == Some(self.uid)
    }

    /// Whether it is a member of a group. Asks the system's database of users.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        match &self.groups {
            Some(groups) => groups.iter().any(|it| it == group),
            None => transport::is_member(self.uid, self.gid, group),
        }
    }
}
