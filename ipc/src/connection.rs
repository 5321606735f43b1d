//! [`Connection`]: messages over a stream of bytes.

use std::io;

use futures_util::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

use crate::Error;

/// Bytes of a message to a service, at most.
pub const MAX_REQUEST: usize = 64 << 10;

/// Bytes of a message from a service, at most: a page of rows fits.
pub const MAX_ANSWER: usize = 4 << 20;

/// Messages over a stream: JSON behind a length of four bytes, big-endian.
#[derive(Debug)]
pub struct Connection<S> {
    frames: Framed<S, LengthDelimitedCodec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The end of a client.
    pub fn of_client(stream: S) -> Self {
        Self::new(stream, MAX_ANSWER)
    }

    /// The end of a service.
    pub fn of_service(stream: S) -> Self {
        Self::new(stream, MAX_REQUEST)
    }

    /// One codec serves both directions; what is sent is checked by [`Self::send`].
    fn new(stream: S, longest: usize) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(longest)
            .new_codec();
        Self {
            frames: Framed::new(stream, codec),
        }
    }

    /// Sends a message. Must not be given up half-way.
    ///
    /// # Errors
    /// [`Error::TooLong`], or the stream's.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec(message).map_err(|it| Error::Malformed(it.to_string()))?;
        if text.len() > MAX_ANSWER {
            return Err(Error::TooLong);
        }
        let limit = self.frames.codec().max_frame_length();
        // What may come in is not what may go out.
        self.frames.codec_mut().set_max_frame_length(MAX_ANSWER);
        let sent = self.frames.send(Bytes::from(text)).await;
        self.frames.codec_mut().set_max_frame_length(limit);
        sent.map_err(Error::from)
    }

    /// The next message; nothing if the other end hung up between two messages. May be given up and
    /// called again without losing anything.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Malformed`], or the stream's. After [`Error::Malformed`] the
    /// next message can be received.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<M>, Error> {
        let Some(frame) = self.frames.next().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                Error::TooLong
            } else {
                Error::Io(error)
            }
        })?;
        let message = serde_json::from_slice(&frame);
        message.map_err(|it| Error::Malformed(it.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::envelope::{Hello, Request};
    use proptest::prelude::*;
    use serde_json::Value;
    use tokio::io::AsyncWriteExt;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    /// Everything that a service makes of these bytes, until it hangs up.
    async fn received(bytes: Vec<u8>) -> Vec<Result<Value, String>> {
        let (mut client, service) = tokio::io::duplex(1 << 20);
        client.write_all(&bytes).await.unwrap();
        drop(client);
        let mut connection = Connection::of_service(service);
        let mut all = Vec::new();
        loop {
            match connection.receive::<Value>().await {
                Ok(Some(message)) => all.push(Ok(message)),
                Ok(None) => return all,
                Err(error @ Error::Malformed(_)) => all.push(Err(error.to_string())),
                Err(error) => {
                    all.push(Err(error.to_string()));
                    return all;
                }
            }
        }
    }

    fn framed(text: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text);
        bytes
    }

    #[test]
    fn a_long_message_is_refused_before_it_is_received() {
        let too_long = u32::try_from(MAX_REQUEST + 1).unwrap().to_be_bytes();
        let all = block_on(received(too_long.to_vec()));
        assert_eq!(all, [Err(Error::TooLong.to_string())]);
        let longest = format!("\"{}\"", "x".repeat(MAX_REQUEST - 2));
        let all = block_on(received(framed(longest.as_bytes())));
        assert!(all[0].is_ok() && all.len() == 1);
    }

    #[test]
    fn an_unreadable_message_does_not_hide_the_next() {
        let mut bytes = framed(b"{");
        bytes.extend(framed(b"7"));
        let all = block_on(received(bytes));
        assert!(all[0].is_err());
        assert_eq!(all[1], Ok(7.into()));
    }

    #[test]
    fn an_answer_may_be_longer_than_a_request() {
        block_on(async {
            let (client, service) = tokio::io::duplex(1 << 20);
            let answer = "x".repeat(MAX_REQUEST * 2);
            let mut service = Connection::of_service(service);
            service.send(&answer).await.unwrap();
            let mut client = Connection::of_client(client);
            assert_eq!(client.receive::<String>().await.unwrap(), Some(answer));
            let error = client.send(&"x".repeat(MAX_ANSWER)).await.unwrap_err();
            assert!(matches!(error, Error::TooLong), "{error}");
        });
    }

    proptest! {
        /// Whatever comes from outside: messages or errors, no panic.
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            block_on(received(bytes));
        }

        /// The same for bytes that look like messages.
        #[test]
        fn no_message_panics(
            text in "[\\[\\]{}:,\"a-z0-9\\\\ .-]{0,60}",
            mut cut in 0usize..70,
        ) {
            let mut bytes = framed(text.as_bytes());
            cut = cut.min(bytes.len());
            bytes.truncate(cut);
            for message in block_on(received(bytes)).into_iter().flatten() {
                let _ = serde_json::from_value::<Hello<Value>>(message.clone());
                let _ = serde_json::from_value::<Request<Value>>(message.clone());
                let _ = serde_json::from_value::<Request<control::plat::Verb>>(message);
            }
        }
    }
}
