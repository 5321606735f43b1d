//! Where metrics are served, and how they come to another place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use cli::Failure;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Admin, metrics};

/// Metrics, if they are served.
#[derive(Debug, Default)]
pub(super) struct Serving(Option<Served>);

#[derive(Debug)]
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Another place for them, which is open already.
#[derive(Debug)]
pub(super) struct Place {
    address: SocketAddr,
    listener: TcpListener,
    /// Where they were served until this was opened, if both cannot be open at once.
    closed: Option<SocketAddr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    /// Whether nobody can listen at `other` because of this.
    fn is_in_the_way_of(&self, other: SocketAddr) -> bool {
        let (own, other_ip) = (self.address.ip().to_canonical(), other.ip().to_canonical());
        let is_any = |it: IpAddr| it.is_unspecified();
        let same_host = own == other_ip || is_any(own) || is_any(other_ip);
        same_host && self.address.port() == other.port()
    }
}

impl Serving {
    /// Whether they are served there.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let served = self.0.as_ref();
        served.is_some_and(|it| it.address == address && !it.task.is_finished())
    }

    /// Opens another place. They are served where they are until [`Self::go_on`], unless that is in
    /// the way of it: then they are waited for from now on at the other one.
    ///
    /// # Errors
    /// It cannot be had; they are served where they were.
    pub(super) async fn open(
        &mut self,
        admin: &Arc<Admin>,
        address: SocketAddr,
    ) -> Result<Place, Failure> {
        let mut closed = None;
        let mut opened = TcpListener::bind(address).await;
        let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        if opened.as_ref().is_err_and(is_taken)
            && let Some(own) = self.0.take_if(|it| it.is_in_the_way_of(address))
        {
            closed = Some(own.address);
            end(own).await;
            opened = TcpListener::bind(address).await;
        }
        match opened {
            Ok(listener) => Ok(Place {
                address,
                listener,
                closed,
            }),
            Err(error) => {
                self.again(admin, closed).await;
                Err(cannot(address, &error))
            }
        }
    }

    /// Serves them at another place, and nowhere else.
    pub(super) async fn go_on(&mut self, admin: &Arc<Admin>, place: Option<Place>) {
        if let Some(own) = self.0.take() {
            end(own).await;
        }
        if let Some(place) = place {
            let served = metrics::serve(Arc::clone(admin), place.listener);
            self.0 = Some(Served {
                address: place.address,
                task: tokio::spawn(served),
            });
        }
    }

    /// Nothing comes of another place: they are served where they were.
    pub(super) async fn stay(&mut self, admin: &Arc<Admin>, place: Place) {
        drop(place.listener);
        self.again(admin, place.closed).await;
    }

    /// Serves them where they were before something else was tried.
    async fn again(&mut self, admin: &Arc<Admin>, closed: Option<SocketAddr>) {
        let Some(address) = closed else {
            return;
        };
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let place = Place {
                    address,
                    listener,
                    closed: None,
                };
                self.go_on(admin, Some(place)).await;
            }
            // Somebody was quick. The next reload tries it again.
            Err(error) => tracing::warn!("{}", cannot(address, &error)),
        }
    }
}

/// Ends it, and waits until nobody listens there any more.
async fn end(mut served: Served) {
    served.task.abort();
    let _ = (&mut served.task).await;
}

fn cannot(address: SocketAddr, error: &io::Error) -> Failure {
    Failure::io(format!("no metrics at {address}"), error)
        .hint("metrics.listen: an address and port of this host that nobody listens at")
}
