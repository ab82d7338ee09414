//! The driver's connection, and the task that drives it.

use std::future::poll_fn;
use std::sync::Arc;

use lockcore_link::Vigil;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};

use crate::address::Address;
use crate::error;
use crate::release_signals::ReleaseSignals;
#[cfg(feature = "tls")]
use crate::unconnected;

/// Owned by the driver's task: hears what the server sends unasked, and tells when the task ends.
pub(crate) struct Lifeline {
    pub(crate) signals: Arc<ReleaseSignals>,
    pub(crate) vigil: Arc<Vigil>,
}

impl Lifeline {
    fn heard(&self, message: &AsyncMessage) {
        self.vigil.heard();
        match message {
            AsyncMessage::Notification(told) => self.signals.fire(told.channel(), told.payload()),
            AsyncMessage::Notice(notice) => tracing::debug!(%notice, "the server says"),
            _ => {}
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.signals.lose();
    }
}

/// Connects and logs in. A task of its own drives the connection.
pub(crate) async fn connect(
    address: &Address,
    config: &Config,
    lifeline: Lifeline,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    #[cfg(feature = "tls")]
    if let Some(tls) = address.tls.connector() {
        use tokio_postgres::config::SslMode;

        match config.connect(tls).await {
            Ok((client, connection)) => return Ok((client, drive(connection, lifeline))),
            Err(error)
                if config.get_ssl_mode() == SslMode::Prefer
                    && unconnected::is_untrusted(&error) =>
            {
                // As good as no TLS to who prefers it only: whoever can answer in the server's
                // place can also say that it has none.
                tracing::warn!(
                    "the server's certificate is not trusted: going on without TLS, as \
                     sslmode=prefer allows"
                );
                let (client, connection) =
                    config.clone().ssl_mode(SslMode::Disable).connect(NoTls).await?;
                return Ok((client, drive(connection, lifeline)));
            }
            Err(error) => return Err(error),
        }
    }
    let _ = address;
    let (client, connection) = config.connect(NoTls).await?;
    Ok((client, drive(connection, lifeline)))
}

fn drive<S, T>(mut connection: Connection<S, T>, lifeline: Lifeline) -> AbortHandle
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let task = tokio::spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(message)) => lifeline.heard(&message),
                Some(Err(error)) => {
                    let error = error::words(&error);
                    tracing::debug!(%error, "the connection is lost");
                    return;
                }
                None => return,
            }
        }
    });
    task.abort_handle()
}
