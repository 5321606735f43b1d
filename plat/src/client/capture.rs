//! `plat capture`: packets as the running `plat` sees them, into a file that other programs read.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use cli::{Exit, Failure};
use control::{
    network::Match,
    plat::{Answer, CaptureFilter, CaptureWanted, CapturedPacket, Event, Protocol, Verb, from_hex},
};
use host::{Host, ThisHost, signals::Signals};

use super::{
    arguments::Service,
    ask::Asking,
    odd,
    pcapng::{Packet, Pcapng},
};

/// What is captured.
#[derive(Debug, Args)]
pub(crate) struct Capture {
    /// Where to write; `-` is the standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Of this protocol: tcp, udp or icmp
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Of these clients: an address, a prefix, or [ADDRESS]:PORT
    #[arg(long, value_name = "WHO")]
    client: Option<Match>,
    /// With these servers: an address, a prefix, or ADDRESS:PORT
    #[arg(long, value_name = "SERVER")]
    remote: Option<Match>,
    /// With this port or identifier, on either side
    #[arg(long)]
    port: Option<u16>,
    /// Only what does not pass
    #[arg(long)]
    dropped: bool,
    /// End after so many packets
    #[arg(short, long, value_name = "PACKETS",
        value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<u32>,
    /// Bytes of each packet; as a rule the headers, not what people send
    #[arg(short, long, value_name = "BYTES", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..))]
    snaplen: u32,
    #[command(flatten)]
    service: Service,
}

fn seconds(text: &str) -> Result<u32, String> {
    let seconds = text.trim_end_matches('s').parse();
    let seconds: u32 = seconds.map_err(|it: std::num::ParseIntError| it.to_string())?;
    (seconds > 0)
        .then_some(seconds)
        .ok_or_else(|| "at least one second".to_owned())
}

impl Capture {
    fn wanted(&self) -> CaptureWanted {
        CaptureWanted {
            filter: CaptureFilter {
                protocol: self.protocol,
                client: self.client,
                remote: self.remote,
                port: self.port,
                dropped: self.dropped,
            },
            snaplen: self.snaplen,
            count: self.count,
            seconds: self.duration,
        }
    }
}

/// Captures until it has all, or until Ctrl-C.
///
/// # Errors
/// What keeps it from going on; that nobody reads any more is none.
pub(super) async fn run(arguments: &Capture) -> Result<Exit, Failure> {
    let mut signals = ThisHost
        .signals()
        .map_err(|error| Failure::io("signals", &error))?;
    if is_stdout(&arguments.file) && io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "a capture is not for a terminal")
            .hint("--file FILE, or pipe it: plat capture | tcpdump -nr -"));
    }
    let mut service = Asking::connect(&arguments.service).await?;
    let answer = service.ask(Verb::Capture(arguments.wanted())).await?;
    let Answer::Capturing { interface } = answer else {
        return Err(odd());
    };
    let written = begin(arguments, &interface);
    let mut written = written.map_err(|error| failure(&arguments.file, &error))?;
    loop {
        let event: Event = tokio::select! {
            event = service.event() => event?,
            _ = signals.next() => break,
        };
        match event {
            Event::Captured { packets, lost } => match written.add(&packets, lost) {
                // Whoever reads may have seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
                result => result.map_err(|error| failure(&arguments.file, &error))?,
            },
            Event::CaptureEnded { lost } => {
                written.lost = lost;
                break;
            }
            Event::SessionCreated(_) | Event::SessionDeleted(_) | Event::Lost { .. } => {}
        }
    }
    let summary = written.end();
    let summary = summary.map_err(|error| failure(&arguments.file, &error))?;
    // The standard output may be the capture.
    eprintln!("{summary}");
    Ok(Exit::Ok)
}

fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

fn failure(file: &Path, error: &io::Error) -> Failure {
    let name = if is_stdout(file) {
        "the standard output".to_owned()
    } else {
        file.display().to_string()
    };
    Failure::error(format_args!("{name}: {error}"))
}

/// The file, only made when there is something to capture.
fn begin(arguments: &Capture, interface: &str) -> io::Result<Written> {
    let writer: Box<dyn Write> = if is_stdout(&arguments.file) {
        Box::new(io::BufWriter::new(io::stdout()))
    } else {
        Box::new(io::BufWriter::new(File::create(&arguments.file)?))
    };
    Ok(Written {
        file: Pcapng::begin(writer, interface, arguments.snaplen)?,
        packets: 0,
        lost: 0,
        last: 0,
    })
}

struct Written {
    file: Pcapng<Box<dyn Write>>,
    packets: u64,
    lost: u64,
    /// When the last packet was.
    last: u64,
}

impl Written {
    fn add(&mut self, packets: &[CapturedPacket], lost: u64) -> io::Result<()> {
        for packet in packets {
            let bytes = from_hex(&packet.bytes).ok_or(io::ErrorKind::InvalidData)?;
            self.file.packet(&Packet {
                at: packet.at,
                side: packet.side,
                outbound: packet.outbound,
                len: packet.len,
                bytes: &bytes,
                comment: packet.comment.as_deref(),
            })?;
            self.packets += 1;
            self.last = packet.at;
        }
        self.lost = lost;
        // Somebody may look while it goes on.
        self.file.flush()
    }

    fn end(self) -> io::Result<String> {
        let Self { packets, lost, .. } = self;
        self.file.end(self.last, lost)?;
        Ok(if lost == 0 {
            format!("{packets} packets captured, none lost")
        } else {
            format!("{packets} packets captured, {lost} lost: there were too many")
        })
    }
}
