//! TLS by rustls, with the ring provider.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use lockcore::{BoxError, InvalidInput};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Makes TLS connections, and looks for the system's certificates only when a server offers one:
/// to read them takes long.
#[derive(Clone)]
pub(crate) struct Connector {
    rustls: Arc<OnceLock<MakeRustlsConnect>>,
}

impl Connector {
    /// Trusts the authorities in a PEM text, or the system's.
    pub(crate) fn new(roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        let rustls = Arc::new(OnceLock::new());
        if let Some(pem) = roots {
            let _ = rustls.set(trusting(pem).map_err(|error| {
                InvalidInput::new(format!("the root certificates cannot be used: {error}"))
            })?);
        }
        Ok(Self { rustls })
    }

    async fn rustls(&self) -> Result<MakeRustlsConnect, BoxError> {
        if let Some(rustls) = self.rustls.get() {
            return Ok(rustls.clone());
        }
        let found = tokio::task::spawn_blocking(|| {
            // rustls panics where it finds no provider or several. If the application chose one,
            // it stays.
            let _ = ring::default_provider().install_default();
            MakeRustlsConnect::with_native_certs()
        });
        let (rustls, _) = found.await?.map_err(|_| "this system has no root certificates")?;
        Ok(self.rustls.get_or_init(|| rustls).clone())
    }
}

fn trusting(pem: &[u8]) -> Result<MakeRustlsConnect, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("no certificate in the PEM text".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = BoxError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, BoxError> {
        Ok(Handshake { connector: self.clone(), domain: domain.to_owned() })
    }
}

/// One TLS handshake, which has not begun.
pub(crate) struct Handshake {
    connector: Connector,
    domain: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let mut rustls = self.connector.rustls().await?;
            let handshake = MakeTlsConnect::<Socket>::make_tls_connect(&mut rustls, &self.domain)?;
            Ok(handshake.connect(socket).await?)
        })
    }
}
