//! HTTPS by rustls: the certificate and its key, from PEM files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A certificate chain with its key, ready to answer with.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{what} {path}: {source}")]
    Pem {
        /// Which of the two.
        what: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("the certificate {path} holds no PEM block CERTIFICATE")]
    NoCertificate {
        /// The file.
        path: String,
    },
    /// The two do not belong together, or cannot be used.
    #[error("this certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Reads a chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |what, path: &Path| {
            let path = path.display().to_string();
            move |source| TlsError::Pem { what, path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(failed("the certificate", certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: certificate.display().to_string() });
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(failed("the certificate's key", key))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept<S>(&self, stream: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificate_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (cert, key) = (file("cert.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
        let (empty, other) = (file("empty.pem", ""), file("other.pem", &other.signing_key.serialize_pem()));
        assert!(Tls::load(&cert, &key).is_ok());
        for (cert, key, said) in [
            (&empty, &key, "empty.pem"),
            (&cert, &empty, "empty.pem"),
            (&folder.path().join("none.pem"), &key, "none.pem"),
            (&cert, &other, "cannot be used"),
        ] {
            let error = Tls::load(cert, key).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
