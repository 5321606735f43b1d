//! The file that `plat init` writes.

use std::fmt::{Display, Write};

use super::{Answers, Clients, Serves};

/// The file, with the reasons in comments.
pub(super) fn file(answers: &Answers) -> String {
    let mut text = String::from(
        "# Written by `plat init`. Every other key, with its default: `plat config show`.\n\n",
    );
    prefix(&mut text, answers);
    pool(&mut text, answers);
    if answers.serves == Serves::Private {
        destinations(&mut text, answers);
    }
    clients(&mut text, answers);
    text
}

fn prefix(text: &mut String, answers: &Answers) {
    let prefix = answers.prefix;
    text.push_str(if prefix.is_well_known() {
        "# The well-known prefix: right where only the IPv4 internet is served. It cannot stand for\n\
         # private addresses (RFC 6052 section 3.1).\n"
    } else if prefix.is_local_use() {
        "# A prefix for local use (RFC 8215), drawn at random: it can stand for private addresses, too.\n\
         # Announce it in router advertisements and to the DNS64.\n"
    } else {
        "# A prefix of this network. Announce it in router advertisements and to the DNS64.\n"
    });
    let _ = writeln!(text, "prefixes = [\"{prefix}\"]\n");
}

fn pool(text: &mut String, answers: &Answers) {
    if answers.pool.is_empty() {
        text.push_str(
            "# Clients share ports of this host's own IPv4 address. With addresses that are routed to\n\
             # this host and used by nothing, write:\n\
             #pool = [\"192.0.2.16/28\"]\n\n",
        );
        return;
    }
    text.push_str("# The IPv4 addresses that clients share. They must be routed to this host.\n");
    let _ = writeln!(text, "pool = {}\n", list(&answers.pool));
}

fn destinations(text: &mut String, answers: &Answers) {
    text.push_str(
        "# Private networks that clients may reach. Everything else that is special stays refused:\n\
         # loopback, link-local and metadata addresses, this host's own. Whoever can reach the prefix\n\
         # reaches these networks from this host's place, past firewalls that trust it: name only\n\
         # what is to be served.\n",
    );
    let _ = writeln!(text, "allow_destinations = {}\n", list(&answers.allow));
}

fn clients(text: &mut String, answers: &Answers) {
    if answers.clients.is_empty() {
        text.push_str(
            "# No interface of this host has a network of IPv6 clients yet: give the one towards them\n\
             # an address.\n",
        );
        return;
    }
    text.push_str(
        "# The networks that this host is on the way to, as they are now. Without this line plat looks\n\
         # for itself, and follows when they change.\n",
    );
    for Clients { network, interface } in &answers.clients {
        let _ = writeln!(text, "#   {network} on {interface}");
    }
    let networks: Vec<_> = answers.clients.iter().map(|it| it.network).collect();
    let _ = writeln!(text, "clients = {}", list(&networks));
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|it| format!("\"{it}\"")).collect();
    format!("[{}]", items.join(", "))
}
