//! The verbs.

use core::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::capture::{CaptureWanted, CapturedPacket};
use super::rows::{
    BibRow, ClientRow, Health, HeldRow, PoolRow, Protocol, RefusedClient, SessionRow, StatsRow,
    Status,
};
use crate::network::Match;

/// The most rows in one answer. A longer list comes in pages.
pub const MAX_PAGE: usize = 2000;

/// Where the next page of a list begins. Only the service knows what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which worker's table.
    #[serde(default)]
    pub shard: u32,
    /// Where in it.
    #[serde(default)]
    pub at: u64,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows, at most [`MAX_PAGE`]. There may be none although there is a next page.
    pub rows: Vec<T>,
    /// Where the next page begins, if there is one.
    #[serde(default)]
    pub next: Option<Cursor>,
}

/// Which sessions or bindings are meant. What is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The client's address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Match>,
    /// The address and port from the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Match>,
    /// The server's address and port; of a binding it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Match>,
    /// The state, like `established`; of a binding it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Filter {
    /// Whether nothing is excluded.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a session is meant.
    #[must_use]
    pub fn wants_session(&self, row: &SessionRow) -> bool {
        let state = self.state.as_ref();
        self.wants_binding(row.protocol, row.client, row.pool)
            && fits(self.remote, SocketAddr::V4(row.remote))
            && state.is_none_or(|it| it.eq_ignore_ascii_case(&row.state))
    }

    /// Whether a binding is meant.
    #[must_use]
    pub fn wants_binding(
        &self,
        protocol: Protocol,
        client: SocketAddrV6,
        pool: SocketAddrV4,
    ) -> bool {
        self.protocol.is_none_or(|it| it == protocol)
            && fits(self.client, SocketAddr::V6(client))
            && fits(self.pool, SocketAddr::V4(pool))
    }
}

fn fits(wanted: Option<Match>, end: SocketAddr) -> bool {
    wanted.is_none_or(|it| it.contains(end))
}

/// By what clients are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopBy {
    /// By sessions.
    #[default]
    Sessions,
    /// By bindings.
    Bindings,
}

impl FromStr for TopBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sessions" => Ok(Self::Sessions),
            "bindings" => Ok(Self::Bindings),
            _ => Err("`sessions` or `bindings`"),
        }
    }
}

/// A page of a list of sessions or bindings that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    #[serde(default)]
    pub filter: Filter,
    /// Where the page begins.
    #[serde(default)]
    pub from: Cursor,
    /// At most so many rows, and at most [`MAX_PAGE`].
    #[serde(default)]
    pub limit: Option<usize>,
}

/// What a client may want of `plat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// How it is.
    Status,
    /// A page of the sessions.
    SessionList(Wanted),
    /// Be told when sessions begin and end.
    SessionFollow {
        /// Which.
        #[serde(default)]
        filter: Filter,
    },
    /// End sessions, and bindings that have none left.
    SessionFlush {
        /// Which.
        #[serde(default)]
        filter: Filter,
    },
    /// A page of the bindings.
    BibList(Wanted),
    /// Make a static binding.
    BibAdd(StaticBinding),
    /// Remove a binding and its sessions.
    BibRemove {
        /// The protocol.
        protocol: Protocol,
        /// The client's address and port, or those from the pool.
        end: SocketAddr,
    },
    /// Use of the pool.
    PoolList,
    /// Who has an address of the pool, or one of its ports.
    PoolClientOf {
        /// The address.
        address: Ipv4Addr,
        /// The port; every one, if it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The protocol; every one, if it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<Protocol>,
    },
    /// Which addresses, blocks of ports and bindings clients have.
    PoolPortsOf {
        /// Which: an address or a network, without a port.
        client: Match,
    },
    /// Everything that is counted.
    Stats,
    /// The clients with the most.
    Top {
        /// Of what.
        #[serde(default)]
        by: TopBy,
        /// So many clients, at most [`MAX_PAGE`].
        #[serde(default)]
        limit: Option<usize>,
    },
    /// The clients that were refused something.
    ClientRefused,
    /// Be sent packets, with what became of them.
    Capture(CaptureWanted),
    /// Whether it works.
    Health,
    /// The configuration by which it runs.
    Config,
    /// Read the configuration again.
    Reload {
        /// Go back by itself unless it is confirmed in so many seconds.
        #[serde(default)]
        confirm_within: Option<u32>,
    },
    /// Keep the configuration that was read last.
    ReloadConfirm,
}

impl Verb {
    /// Whether not everybody may: it changes something, or shows which client talks to whom, or what
    /// they send. That is not every local user's business: the kernel does not show the connections
    /// that it forwards to everybody, either.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        match self {
            Self::Status | Self::PoolList | Self::Stats | Self::Health => false,
            Self::SessionList(_)
            | Self::SessionFollow { .. }
            | Self::BibList(_)
            | Self::Top { .. }
            | Self::ClientRefused
            | Self::PoolClientOf { .. }
            | Self::PoolPortsOf { .. }
            | Self::Config
            | Self::SessionFlush { .. }
            | Self::Capture(_)
            | Self::BibAdd(_)
            | Self::BibRemove { .. }
            | Self::Reload { .. }
            | Self::ReloadConfirm => true,
        }
    }

    /// The command line that asks for it, without its arguments.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Status => "plat status",
            Self::SessionList(_) => "plat session list",
            Self::SessionFollow { .. } => "plat session follow",
            Self::SessionFlush { .. } => "plat session flush",
            Self::BibList(_) => "plat bib list",
            Self::BibAdd(_) => "plat bib add",
            Self::BibRemove { .. } => "plat bib remove",
            Self::PoolList => "plat pool list",
            Self::PoolClientOf { .. } => "plat pool client-of",
            Self::PoolPortsOf { .. } => "plat pool ports-of",
            Self::Stats => "plat stats",
            Self::Top { .. } => "plat top",
            Self::Capture(_) => "plat capture",
            Self::ClientRefused => "plat client refused",
            Self::Health => "plat health",
            Self::Config => "plat config diff",
            Self::Reload { .. } | Self::ReloadConfirm => "plat reload",
        }
    }
}

/// A binding that stays (RFC 6146 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticBinding {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddrV6,
    /// The address and port from the pool.
    pub pool: SocketAddrV4,
}

impl fmt::Display for StaticBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} = {}", self.protocol, self.client, self.pool)
    }
}

/// What `plat` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Verb::Status`].
    Status(Box<Status>),
    /// To [`Verb::SessionList`].
    Sessions(Page<SessionRow>),
    /// To [`Verb::BibList`].
    Bindings(Page<BibRow>),
    /// To [`Verb::PoolList`].
    Pool {
        /// The addresses.
        rows: Vec<PoolRow>,
    },
    /// To [`Verb::PoolClientOf`] and [`Verb::PoolPortsOf`].
    Held {
        /// At most [`MAX_PAGE`]: mappings, then the bindings of a port that was asked for, then
        /// blocks, then bindings that were added up.
        rows: Vec<HeldRow>,
        /// How many bindings and blocks more there are, at least: of blocks no worker tells of many
        /// more than are shown.
        #[serde(default)]
        left_off: u64,
    },
    /// To [`Verb::Stats`].
    Stats {
        /// The counters.
        rows: Vec<StatsRow>,
    },
    /// To [`Verb::Top`].
    Clients {
        /// The clients, most first.
        rows: Vec<ClientRow>,
    },
    /// To [`Verb::ClientRefused`].
    Refused {
        /// The clients, those refused most first.
        rows: Vec<RefusedClient>,
    },
    /// To [`Verb::Capture`]: it has begun.
    Capturing {
        /// The virtual interface.
        interface: String,
    },
    /// To [`Verb::Config`].
    Config {
        /// Every value that holds, as it would be written in the file.
        settings: Vec<SettingRow>,
    },
    /// To [`Verb::Health`].
    Health(Health),
    /// To what changes something.
    Done {
        /// How many sessions or bindings it was, where they can be counted.
        #[serde(default)]
        count: Option<u64>,
        /// What was done, for people.
        #[serde(default)]
        text: String,
    },
}

/// A value of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRow {
    /// Its key, such as `timers.udp`.
    pub key: String,
    /// JSON text; `null` is what is left to the host.
    pub json: String,
}

/// What `plat` tells those who follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A session began.
    SessionCreated(SessionRow),
    /// A session ended.
    SessionDeleted(SessionRow),
    /// Packets that were captured.
    Captured {
        /// In the order in which they were seen, by each worker.
        packets: Vec<CapturedPacket>,
        /// How many were lost so far, because there were too many.
        #[serde(default)]
        lost: u64,
    },
    /// No more packets will be captured.
    CaptureEnded {
        /// How many were lost.
        #[serde(default)]
        lost: u64,
    },
    /// So many events were not told, because they came too fast.
    Lost {
        /// How many.
        count: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> SessionRow {
        SessionRow {
            protocol: Protocol::Tcp,
            client: "[2001:db8::1]:1000".parse().unwrap(),
            pool: "203.0.113.1:2000".parse().unwrap(),
            remote: "198.51.100.1:80".parse().unwrap(),
            prefix: "64:ff9b::/96".to_owned(),
            state: "established".to_owned(),
            expires_in: 7200,
        }
    }

    #[test]
    fn every_part_of_a_filter_counts() {
        let fits = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.wants_session(&row())
        };
        assert!(fits(|_| {}));
        assert!(fits(|it| it.protocol = Some(Protocol::Tcp)));
        assert!(!fits(|it| it.protocol = Some(Protocol::Udp)));
        assert!(fits(|it| it.client = "2001:db8::/64".parse().ok()));
        assert!(!fits(|it| it.client = "2001:db8:1::/64".parse().ok()));
        assert!(!fits(|it| it.pool = "203.0.113.1:2001".parse().ok()));
        assert!(!fits(|it| it.remote = "198.51.100.2".parse().ok()));
        assert!(fits(|it| it.state = Some("ESTABLISHED".to_owned())));
        assert!(!fits(|it| it.state = Some("trans".to_owned())));
    }

    #[test]
    fn fields_of_a_newer_client_are_ignored() {
        let text = r#"{"verb":"session-list","limit":5,"colour":"red"}"#;
        let verb: Verb = serde_json::from_str(text).unwrap();
        let wanted = Wanted {
            limit: Some(5),
            ..Wanted::default()
        };
        assert_eq!(verb, Verb::SessionList(wanted));
        assert!(serde_json::from_str::<Verb>(r#"{"verb":"dance"}"#).is_err());
    }

    #[test]
    fn messages_survive_json() {
        let answer = Answer::Sessions(Page {
            rows: vec![row()],
            next: Some(Cursor { shard: 1, at: 7 }),
        });
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        let verb = Verb::BibAdd(StaticBinding {
            protocol: Protocol::Udp,
            client: row().client,
            pool: row().pool,
        });
        let text = serde_json::to_string(&verb).unwrap();
        assert_eq!(serde_json::from_str::<Verb>(&text).unwrap(), verb);
        assert!(verb.is_restricted() && !Verb::Stats.is_restricted());
    }
}
