//! The command line of the commands that talk to a running `plat`.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args, Subcommand};
use control::{
    network::Match,
    plat::{Filter, Protocol, StaticBinding, TopBy},
};

use super::capture::Capture;
use crate::{admin, instance::Instance};

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say how the running plat is
    Status(Shown),
    /// Say whether it works: exit code 0 if so, 1 if not, 8 if it is not running
    ///
    /// For scripts that watch it. Checked are: its workers answer, an interface towards IPv4 is up,
    /// and the pool has free ports.
    Health(Shown),
    /// Look at sessions, or end them
    #[command(subcommand)]
    Session(SessionVerb),
    /// Look at the bindings, or change static ones
    #[command(subcommand)]
    Bib(BibVerb),
    /// Look at the pool
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Look at the clients
    #[command(subcommand)]
    Client(ClientVerb),
    /// Print what was counted
    Stats {
        /// With a sentence for each counter, and the clause that it follows from
        #[arg(long)]
        explain: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Capture packets of both sides, with what became of them, for Wireshark and tcpdump (pcapng)
    ///
    /// A packet that does not pass has a comment that says why. For root and members of the group
    /// openclat.
    Capture(Capture),
    /// Show the clients with the most sessions or bindings
    Top(TopArguments),
    /// Read the configuration again; sessions survive unless their pool or prefix is gone
    Reload {
        /// Keep what was read last
        #[arg(long, conflicts_with = "confirm_within")]
        confirm: bool,
        /// Go back by itself unless `plat reload --confirm` comes within so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        confirm_within: Option<u32>,
        #[command(flatten)]
        service: Service,
    },
}

fn seconds(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.trim_end_matches('s').parse()
}

/// Which plat.
#[derive(Clone, Debug, Args)]
pub(crate) struct Service {
    #[command(flatten)]
    instance: Instance,
    /// Its control socket
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    socket: Option<PathBuf>,
}

impl Service {
    /// Where it listens.
    pub(super) fn path(&self) -> PathBuf {
        match &self.socket {
            Some(socket) => socket.clone(),
            None => self.instance.state_directory(None).join(admin::SOCKET),
        }
    }
}

/// How an answer is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shown {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) service: Service,
}

/// How a list is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listed {
    /// At most so many rows
    #[arg(long, value_name = "ROWS")]
    pub(super) limit: Option<usize>,
    /// Print JSON, one line per row
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Which bindings.
#[derive(Clone, Debug, Args)]
pub(crate) struct WhichBinding {
    /// Of this protocol: tcp, udp or icmp
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Of these clients: an address, a prefix, or [ADDRESS]:PORT
    #[arg(long, value_name = "WHO")]
    client: Option<Match>,
    /// On these addresses of the pool: an address, a prefix, or ADDRESS:PORT
    #[arg(long, value_name = "WHERE")]
    pool: Option<Match>,
}

impl WhichBinding {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            protocol: self.protocol,
            client: self.client,
            pool: self.pool,
            ..Filter::default()
        }
    }
}

/// Which sessions.
#[derive(Clone, Debug, Args)]
pub(crate) struct Which {
    #[command(flatten)]
    binding: WhichBinding,
    /// With these servers: an address, a prefix, or ADDRESS:PORT
    #[arg(long, value_name = "SERVER")]
    remote: Option<Match>,
    /// In this state, as the list shows it
    #[arg(long)]
    state: Option<String>,
}

impl Which {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            remote: self.remote,
            state: self.state.clone(),
            ..self.binding.filter()
        }
    }
}

/// What can be done with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// Print them
    #[command(visible_alias = "display")]
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        list: Listed,
    },
    /// Print those that begin and end, until Ctrl-C
    Follow {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shown: Shown,
    },
    /// End them, and the bindings that have no other
    Flush {
        #[command(flatten)]
        which: Which,
        /// Every session
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        shown: Shown,
    },
}

/// A static binding.
#[derive(Clone, Debug, Args)]
pub(crate) struct Binding {
    /// tcp, udp or icmp
    protocol: Protocol,
    /// The client: [ADDRESS]:PORT
    #[arg(value_name = "CLIENT")]
    client: SocketAddrV6,
    /// What it is reached by: ADDRESS:PORT of the pool
    #[arg(value_name = "POOL")]
    pool: SocketAddrV4,
}

impl From<Binding> for StaticBinding {
    fn from(binding: Binding) -> Self {
        Self {
            protocol: binding.protocol,
            client: binding.client,
            pool: binding.pool,
        }
    }
}

/// What can be done with bindings.
#[derive(Debug, Subcommand)]
pub(crate) enum BibVerb {
    /// Print them
    #[command(visible_alias = "display")]
    List {
        #[command(flatten)]
        which: WhichBinding,
        #[command(flatten)]
        list: Listed,
    },
    /// Make a static one; it lasts until it is removed or plat ends
    Add {
        #[command(flatten)]
        binding: Binding,
        #[command(flatten)]
        shown: Shown,
    },
    /// Remove one, and its sessions
    Remove {
        /// tcp, udp or icmp
        protocol: Protocol,
        /// The client's [ADDRESS]:PORT, or ADDRESS:PORT of the pool
        #[arg(value_name = "END")]
        end: SocketAddr,
        #[command(flatten)]
        shown: Shown,
    },
}

/// What can be done with the pool.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// Print the use of each address by protocol, and the most that it was
    ///
    /// HIGHEST is exact with one worker. With several it is the sum of what each of them had at
    /// most: never less than the truth, more if that was at different times.
    #[command(visible_alias = "display")]
    List(Shown),
    /// Say who has an address of the pool, or one of its ports, now
    ///
    /// Ports that follow from a subscriber's number have an owner also without a session. Who had a
    /// port in the past, the event log says.
    ClientOf {
        /// ADDRESS, or ADDRESS:PORT; for ICMP, an identifier
        #[arg(value_name = "ADDRESS[:PORT]")]
        end: PoolEnd,
        /// Of this protocol: tcp, udp or icmp
        #[arg(long)]
        protocol: Option<Protocol>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Print the addresses, blocks of ports and bindings of a client, or of all in a network
    PortsOf {
        /// An address or a prefix, like 2001:db8:1:2::/64
        #[arg(value_name = "CLIENT")]
        client: Match,
        #[command(flatten)]
        shown: Shown,
    },
}

/// An address of the pool, or one with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolEnd {
    pub(super) address: Ipv4Addr,
    pub(super) port: Option<u16>,
}

impl FromStr for PoolEnd {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            let port = None;
            return Ok(Self { address, port });
        }
        let end: SocketAddrV4 = text
            .parse()
            .map_err(|_| "not ADDRESS or ADDRESS:PORT, like 192.0.2.1:40000")?;
        Ok(Self {
            address: *end.ip(),
            port: Some(end.port()),
        })
    }
}

/// What can be done with clients.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientVerb {
    /// Print those that were refused something, by /64: how often, since when, and why the last time
    #[command(visible_alias = "display")]
    Refused(Shown),
}

/// What `top` shows.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// By `sessions` or by `bindings`
    #[arg(long, default_value = "sessions")]
    pub(super) by: TopBy,
    /// So many clients
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub(super) limit: usize,
    /// Print it once; otherwise it is refreshed, on a terminal
    #[arg(long)]
    pub(super) once: bool,
    #[command(flatten)]
    pub(super) shown: Shown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Command::augment_subcommands(clap::Command::new("plat")).debug_assert();
    }

    #[test]
    fn an_end_of_the_pool_has_a_port_or_none() {
        let end = |text: &str| {
            text.parse()
                .map(|PoolEnd { address, port }| (address, port))
        };
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(end("192.0.2.1"), Ok((address, None)));
        assert_eq!(end("192.0.2.1:7"), Ok((address, Some(7))));
        for wrong in [
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.0/24",
            "2001:db8::1",
        ] {
            assert!(end(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_instance_has_a_socket_of_its_own() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            service: Service,
        }
        let path = |line: &[&str]| {
            let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
            line.service.path().display().to_string()
        };
        assert_eq!(path(&["plat"]), "/run/openclat/plat/control.sock");
        let named = path(&["plat", "--instance", "lab"]);
        assert_eq!(named, "/run/openclat/plat@lab/control.sock");
        assert_eq!(path(&["plat", "--socket", "/x"]), "/x");
    }
}
