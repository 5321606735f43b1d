//! Several packets with one system call: `recvmmsg` and `sendmmsg`.

use std::{
    io,
    mem::{MaybeUninit, zeroed},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::null_mut,
};

use super::MAX_BURST;

type Headers = [MaybeUninit<libc::mmsghdr>; MAX_BURST];
type Vectors = [MaybeUninit<libc::iovec>; MAX_BURST];

/// Receives what is there, without waiting, one packet into each of `areas`. Calls `received` with
/// the number and the length of each; how many there were.
///
/// # Errors
/// The system's: `WouldBlock` if there is nothing.
pub(super) fn receive<'a>(
    socket: BorrowedFd<'_>,
    areas: impl Iterator<Item = &'a mut [u8]>,
    mut received: impl FnMut(usize, usize),
) -> io::Result<usize> {
    let mut vectors: Vectors = [const { MaybeUninit::uninit() }; MAX_BURST];
    let mut headers: Headers = [const { MaybeUninit::uninit() }; MAX_BURST];
    let count = prepare(&mut vectors, &mut headers, areas.map(vector_mut));
    // SAFETY: the first `count` headers are valid, each names one valid vector of this function,
    // and each vector an area that is borrowed until its end.
    let result = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT,
            null_mut(),
        )
    };
    let filled = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    for (at, header) in headers[..filled].iter().enumerate() {
        // SAFETY: `prepare` has written at least as many headers as the kernel filled.
        let len = unsafe { header.assume_init_ref() }.msg_len;
        received(at, len as usize);
    }
    Ok(filled)
}

/// Sends packets, in order, as far as the socket takes them; how many it took.
///
/// # Errors
/// The system's, about the first packet, if it took none.
pub(super) fn send<'a>(
    socket: BorrowedFd<'_>,
    packets: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut vectors: Vectors = [const { MaybeUninit::uninit() }; MAX_BURST];
    let mut headers: Headers = [const { MaybeUninit::uninit() }; MAX_BURST];
    let count = prepare(&mut vectors, &mut headers, packets.map(vector));
    // SAFETY: the first `count` headers are valid, each names one valid vector of this function,
    // and each vector a packet that is borrowed until its end. The kernel only reads them.
    let result =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count, 0) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Writes one header and one vector for each of `parts`, of which there may be [`MAX_BURST`]; how
/// many.
fn prepare(
    vectors: &mut Vectors,
    headers: &mut Headers,
    parts: impl Iterator<Item = libc::iovec>,
) -> libc::c_uint {
    let mut count = 0;
    for ((vector, header), part) in vectors.iter_mut().zip(headers).zip(parts) {
        // SAFETY: an all-zero mmsghdr is a valid value of that plain C struct.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_iov = vector.write(part);
        message.msg_hdr.msg_iovlen = 1;
        header.write(message);
        count += 1;
    }
    count
}

fn vector_mut(area: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: area.as_mut_ptr().cast(),
        iov_len: area.len(),
    }
}

fn vector(packet: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::AsFd, unix::net::UnixDatagram};

    #[test]
    fn packets_keep_their_order_and_length() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let packets: Vec<Vec<u8>> = (1..=5u8).map(|n| vec![n; usize::from(n) * 100]).collect();
        let sent = send(one.as_fd(), packets.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(sent, 5);
        let mut areas = vec![vec![0; 1000]; 3];
        let mut lengths = Vec::new();
        let take = |areas: &mut Vec<Vec<u8>>, lengths: &mut Vec<(usize, usize)>| {
            let slices = areas.iter_mut().map(Vec::as_mut_slice);
            receive(other.as_fd(), slices, |at, len| lengths.push((at, len)))
        };
        assert_eq!(take(&mut areas, &mut lengths).unwrap(), 3);
        assert_eq!(lengths, [(0, 100), (1, 200), (2, 300)]);
        assert_eq!(areas[2][..300], packets[2]);
        lengths.clear();
        assert_eq!(take(&mut areas, &mut lengths).unwrap(), 2);
        assert_eq!(lengths, [(0, 400), (1, 500)]);
        let nothing = take(&mut areas, &mut lengths).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_not_taken_is_told() {
        let (one, other) = UnixDatagram::pair().unwrap();
        drop(other);
        let packet: &[u8] = b"x";
        assert!(send(one.as_fd(), [packet].into_iter()).is_err());
    }
}
