//! TLS of both ports, with certificates from files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::connection::Port;
use crate::error::Error;
use crate::files;

/// The files of TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server, and those between it and its authority.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients, if clients must show a certificate.
    pub client_authorities: Option<PathBuf>,
}

impl TlsFiles {
    /// All of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let of_server = [&self.certificates, &self.key];
        of_server
            .into_iter()
            .chain(&self.client_authorities)
            .map(PathBuf::as_path)
    }
}

/// The configuration of TLS in force.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    configs: RwLock<Configs>,
}

/// By port, since the protocols differ.
#[derive(Debug, Clone)]
struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read or used.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, Error> {
        Ok(Self {
            configs: RwLock::new(configs(files)?),
            files: files.clone(),
        })
    }

    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Reads the files again, for connections that begin from now on. If they are bad, the old ones stay.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let configs = configs(&self.files)?;
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    /// For a handshake.
    pub(crate) fn acceptor(&self, port: Port) -> TlsAcceptor {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        let config = match port {
            Port::Grpc => &configs.grpc,
            Port::Http => &configs.http,
        };
        TlsAcceptor::from(Arc::clone(config))
    }
}

fn configs(files: &TlsFiles) -> Result<Configs, Error> {
    let chain = certificates("--tls-cert", &files.certificates)?;
    let key = &files.key;
    let wrong_key = |reason: String| Error::File {
        option: "--tls-key",
        path: key.clone(),
        reason,
    };
    let pem = files::read(key).map_err(|err| wrong_key(err.to_string()))?;
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| wrong_key("it has no private key in PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned()))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| wrong_key(err.to_string()))?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |reason: String| Error::File {
                option: "--client-ca",
                path: path.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates("--client-ca", path)? {
                roots.add(certificate).map_err(|err| wrong(err.to_string()))?;
            }
            // Health checks are answered without a certificate, so that the handshake does not demand one. What is shown is verified,
            // and all other requests need one.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|err| wrong(err.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut grpc = builder
        .with_single_cert(chain, secret)
        .map_err(|err| wrong_key(format!("it does not belong to the certificate: {err}")))?;
    let mut http = grpc.clone();
    grpc.alpn_protocols = vec![b"h2".to_vec()];
    http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Configs {
        grpc: Arc::new(grpc),
        http: Arc::new(http),
    })
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |reason: String| Error::File {
        option,
        path: path.to_owned(),
        reason,
    };
    let pem = files::read(path).map_err(|err| wrong(err.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(wrong("it has no certificate in PEM".to_owned())),
    }
}
