//! Whose certificates to trust, and which one to show.

use std::sync::Arc;

use etcd_client::{Certificate, Identity, TlsOptions};
use lockcore::{BoxError, InvalidInput};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// PEM texts as they were given.
#[derive(Default)]
pub(crate) struct Trust {
    pub(crate) roots: Option<Vec<u8>>,
    /// A certificate and its private key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Trust {
    pub(crate) fn unused(&self) -> Result<(), InvalidInput> {
        if self.roots.is_some() || self.identity.is_some() {
            return Err(InvalidInput::new("certificates are of use with etcds:// only"));
        }
        Ok(())
    }

    /// As the driver takes them. It would tell of a text that it cannot read at each connect only,
    /// and not at all of a root in it.
    pub(crate) fn options(self, tls: bool) -> Result<Option<TlsOptions>, InvalidInput> {
        if !tls {
            return self.unused().map(|()| None);
        }
        let mut options = TlsOptions::new();
        options = match self.roots {
            Some(pem) => {
                roots(&pem).map_err(|error| unusable("root certificates", &error))?;
                options.ca_certificate(Certificate::from_pem(pem))
            }
            None => options.with_native_roots(),
        };
        if let Some((certificate, key)) = self.identity {
            identity(&certificate, &key)
                .map_err(|error| unusable("client's certificate and key", &error))?;
            options = options.identity(Identity::from_pem(certificate, key));
        }
        Ok(Some(options))
    }
}

/// The errors of the parsers name what is wrong, and repeat nothing of a text.
fn unusable(what: &str, error: &BoxError) -> InvalidInput {
    InvalidInput::new(format!("the {what} cannot be used: {error}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        all.push(certificate.map_err(|_| "a certificate in the PEM text cannot be read")?);
    }
    if all.is_empty() {
        return Err("no certificate in the PEM text".into());
    }
    Ok(all)
}

fn roots(pem: &[u8]) -> Result<(), BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(())
}

fn identity(certificate: &[u8], key: &[u8]) -> Result<(), BoxError> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "the PEM text of the key holds none that can be read")?;
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(certificates(certificate)?, key)?;
    Ok(())
}
