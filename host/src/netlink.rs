//! Requests to the kernel by rtnetlink that always end, and dumps that are whole.
//!
//! Requests have a socket of their own: notifications can overrun a socket, and the answer to a
//! request would be lost with them. Should an answer be lost all the same, waiting for it ends with
//! an error.

use std::{future::Future, io, time::Duration};

use futures_util::StreamExt;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage, address::AddressMessage, link::LinkMessage,
        neighbour::NeighbourMessage, route::RouteMessage,
    },
};

/// The kernel answers at once, even if a dump is long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a dump is started over because something changed meanwhile. Where changes never end,
/// the last attempt has to do.
const DUMP_ATTEMPTS: usize = 5;

/// A connection to the kernel.
#[derive(Clone)]
pub(crate) struct Netlink(Handle);

/// Whether a dump shows the kernel's tables as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consistent {
    Yes,
    /// Entries may be missing although they were there all the time.
    No,
}

impl Netlink {
    /// Opens a socket. Must be called on a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        // The last message of a dump may be the one that says it was interrupted.
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// For requests that change something. Not for dumps: [`Self::dump`].
    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }

    /// All entries of a table.
    pub(crate) async fn dump(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 1..DUMP_ATTEMPTS {
            if let (entries, Consistent::Yes) = self.ask(request.clone(), NLM_F_DUMP).await? {
                return Ok(entries);
            }
        }
        let (entries, consistent) = self.ask(request, NLM_F_DUMP).await?;
        if consistent == Consistent::No {
            tracing::debug!("the kernel's tables change faster than they can be read");
        }
        Ok(entries)
    }

    /// The answer to a question about one entry.
    pub(crate) async fn get(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Ok(self.ask(request, 0).await?.0)
    }

    async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, Consistent)> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.0.clone();
        let mut answers = handle.request(message).map_err(into_io)?;
        within(TIMEOUT, async {
            let (mut entries, mut consistent) = (Vec::new(), Consistent::Yes);
            while let Some(answer) = answers.next().await {
                if answer.header.flags & NLM_F_DUMP_INTR != 0 {
                    consistent = Consistent::No;
                }
                entries.extend(entry(answer.payload)?);
            }
            Ok((entries, consistent))
        })
        .await
    }
}

fn entry(payload: NetlinkPayload<RouteNetlinkMessage>) -> io::Result<Option<RouteNetlinkMessage>> {
    if let NetlinkPayload::InnerMessage(entry) = payload {
        return Ok(Some(entry));
    }
    if let NetlinkPayload::Error(error) = &payload
        && error.code.is_some()
    {
        return Err(error.to_io());
    }
    if let NetlinkPayload::Done(done) = payload
        && done.code < 0
    {
        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
    }
    Ok(None)
}

pub(crate) fn as_link(message: &RouteNetlinkMessage) -> Option<&LinkMessage> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    Some(message)
}

pub(crate) fn as_address(message: &RouteNetlinkMessage) -> Option<&AddressMessage> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    Some(message)
}

pub(crate) fn as_route(message: &RouteNetlinkMessage) -> Option<&RouteMessage> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    Some(message)
}

pub(crate) fn as_neighbour(message: &RouteNetlinkMessage) -> Option<&NeighbourMessage> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    Some(message)
}

/// Waits for `answer`, but not for ever.
pub(crate) async fn within<T>(
    time: Duration,
    answer: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", time.as_secs()),
        )),
    }
}

pub(crate) fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return message.to_io();
    }
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{DoneMessage, ErrorMessage};

    #[test]
    fn the_end_of_a_dump_may_be_an_error() {
        let done = |code| {
            let mut message = DoneMessage::default();
            message.code = code;
            entry(NetlinkPayload::Done(message))
        };
        assert!(done(0).unwrap().is_none());
        assert_eq!(
            done(-libc::EMSGSIZE).unwrap_err().raw_os_error(),
            Some(libc::EMSGSIZE)
        );
        let acknowledged = ErrorMessage::default();
        assert!(
            entry(NetlinkPayload::Error(acknowledged))
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_lost_answer_is_not_waited_for_for_ever() {
        let never = std::future::pending::<io::Result<()>>();
        let error = within(Duration::from_millis(1), never).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
