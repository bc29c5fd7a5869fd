//! Whom to trust: the host's certificates, and those that a directory gives for single registries.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{ConnectError, DistributionError, Result};

/// Name, size and time of each file of a registry's directory: what its configuration was made of.
type Listing = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Configurations by authority and whether it need not be trusted, with what they were made of.
type Kept = HashMap<(String, bool), (Listing, Arc<ClientConfig>)>;

/// What `hosts.toml` says of a host's TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnTls {
    /// Files of certificate authorities, beside the host's.
    pub(crate) ca: Vec<PathBuf>,
    /// Files of certificates with their keys, the same where one has both; the first is shown.
    pub(crate) clients: Vec<(PathBuf, PathBuf)>,
    pub(crate) skip_verify: bool,
}

/// Makes and keeps configurations.
pub(crate) struct Trust {
    certs_dirs: Vec<PathBuf>,
    provider: Arc<CryptoProvider>,
    /// Reading some 140 certificates takes milliseconds: only once somebody needs them.
    roots: OnceLock<Arc<RootCertStore>>,
    kept: Mutex<Kept>,
    /// Those of `hosts.toml`.
    own: Mutex<HashMap<OwnTls, (Listing, Arc<ClientConfig>)>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("certs_dirs", &self.certs_dirs).finish_non_exhaustive()
    }
}

impl Trust {
    pub(crate) fn new(certs_dirs: Vec<PathBuf>) -> Self {
        let provider = Arc::new(ring::default_provider());
        Self { certs_dirs, provider, roots: OnceLock::new(), kept: Mutex::default(), own: Mutex::default() }
    }

    /// Folders with a folder for each registry.
    pub(crate) fn certs_dirs(&self) -> &[PathBuf] {
        &self.certs_dirs
    }

    /// Whether one of `certs_dirs` has a certificate authority for the registry `authority` (`HOST[:PORT]`). It is then
    /// verified, though it may be on the list of insecure ones.
    pub(crate) fn has_authority(&self, authority: &str) -> bool {
        self.listing(authority).is_ok_and(|files| files.iter().any(|(path, ..)| has_extension(path, "crt")))
    }

    /// Whether one of `certs_dirs` has certificates for the registry `authority`.
    pub(crate) fn has_files(&self, authority: &str) -> bool {
        // One that cannot be read is told of by who uses it.
        !self.listing(authority).is_ok_and(|files| files.is_empty())
    }

    /// Files of certificate authorities of the registry `authority`.
    pub(crate) fn authorities(&self, authority: &str) -> Vec<PathBuf> {
        let files = self.listing(authority).unwrap_or_default().into_iter().map(|(path, ..)| path);
        files.filter(|path| has_extension(path, "crt")).collect()
    }

    /// The configuration for connections to `authority`. An `insecure` registry without a certificate authority
    /// of its own is not verified.
    ///
    /// # Errors
    /// When a file of the registry's directory cannot be used.
    pub(crate) fn config(&self, authority: &str, insecure: bool) -> Result<Arc<ClientConfig>> {
        let listing = self.listing(authority)?;
        // Without files of its own a registry shares the configuration, and so the sessions, of all others.
        let key = (if listing.is_empty() { String::new() } else { authority.to_owned() }, insecure);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = kept.get(&key).filter(|(of, _)| *of == listing) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(&listing, insecure)?);
        kept.insert(key, (listing, config.clone()));
        Ok(config)
    }

    /// The configuration for a host of `hosts.toml`.
    ///
    /// # Errors
    /// When one of its files cannot be used.
    pub(crate) fn own_config(&self, own: &OwnTls) -> Result<Arc<ClientConfig>> {
        let clients = own.clients.iter().flat_map(|(certificate, key)| [certificate, key]);
        let files = own.ca.iter().chain(clients);
        let listing =
            files.map(|path| fs::metadata(path).map(|found| listed(path.clone(), &found)).map_err(file("read", path)));
        let listing = listing.collect::<Result<Listing>>()?;
        let mut kept = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = kept.get(own).filter(|(of, _)| *of == listing) {
            return Ok(config.clone());
        }
        let mut authorities = Vec::new();
        for path in &own.ca {
            authorities.extend(certificates(path)?);
        }
        let identity = own.clients.first().map(|(certificate, key)| read_identity(certificate, key)).transpose()?;
        let config = Arc::new(self.assemble(authorities, identity, own.skip_verify)?);
        kept.insert(own.clone(), (listing, config.clone()));
        Ok(config)
    }

    fn listing(&self, authority: &str) -> Result<Listing> {
        let mut listing = Listing::new();
        for dir in self.certs_dirs.iter().map(|folder| folder.join(authority)) {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(file("list", &dir)(error)),
            };
            for entry in entries {
                let path = entry.map_err(file("list", &dir))?.path();
                if ["crt", "cert", "key"].iter().any(|extension| has_extension(&path, extension)) {
                    let found = fs::metadata(&path).map_err(file("read", &path))?;
                    listing.push(listed(path, &found));
                }
            }
        }
        listing.sort();
        Ok(listing)
    }

    fn build(&self, listing: &Listing, insecure: bool) -> Result<ClientConfig> {
        let mut own = Vec::new();
        let mut identity = None;
        for (path, ..) in listing {
            if has_extension(path, "crt") {
                own.extend(certificates(path)?);
            } else if has_extension(path, "cert") {
                identity = Some(read_identity(path, &path.with_extension("key"))?);
            } else if !path.with_extension("cert").exists() {
                let reason = "its certificate, of the same name with .cert, is missing".into();
                return Err(DistributionError::Certificate { path: path.display().to_string(), reason });
            }
        }
        let unverified = insecure && own.is_empty();
        self.assemble(own, identity, unverified)
    }

    fn assemble(
        &self,
        own: Vec<(PathBuf, CertificateDer<'static>)>,
        identity: Option<Identity>,
        unverified: bool,
    ) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let unusable =
            |error: rustls::Error| DistributionError::Certificate { path: String::new(), reason: error.to_string() };
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = if unverified {
            let verifier = Unverified { provider: self.provider.clone() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            let mut roots = RootCertStore::clone(self.roots());
            for (path, certificate) in own {
                roots.add(certificate).map_err(|error| DistributionError::Certificate {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                })?;
            }
            builder.with_webpki_verifier(self.verifier(roots)?)
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((path, chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                DistributionError::Certificate { path: path.display().to_string(), reason: error.to_string() }
            })?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self, roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>> {
        if roots.is_empty() {
            let reason = "this host has no certificate authorities; install its package of them".into();
            return Err(DistributionError::Certificate { path: "/etc/ssl/certs".into(), reason });
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        builder.build().map_err(|error| DistributionError::Certificate {
            path: "/etc/ssl/certs".into(),
            reason: error.to_string(),
        })
    }

    fn roots(&self) -> &RootCertStore {
        self.roots.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("a certificate authority of this host cannot be read: {error}");
            }
            let mut roots = RootCertStore::empty();
            // A host's list may have a broken one; the others are not worse for it.
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        })
    }
}

fn listed(path: PathBuf, found: &fs::Metadata) -> (PathBuf, u64, Option<SystemTime>) {
    (path, found.len(), found.modified().ok())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DistributionError {
    let path = path.display().to_string();
    move |source| DistributionError::File { action, path, source }
}

fn certificates(path: &Path) -> Result<Vec<(PathBuf, CertificateDer<'static>)>> {
    let bytes = fs::read(path).map_err(file("read", path))?;
    let wrong = |reason: String| DistributionError::Certificate { path: path.display().to_string(), reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() {
        return Err(wrong("there is no certificate in it".into()));
    }
    Ok(all.into_iter().map(|certificate| (path.to_owned(), certificate)).collect())
}

type Identity = (PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(path: &Path, key_path: &Path) -> Result<Identity> {
    let chain = certificates(path)?.into_iter().map(|(_, certificate)| certificate).collect();
    let bytes = fs::read(key_path).map_err(file("read", key_path))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| DistributionError::Certificate {
        path: key_path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok((path.to_owned(), chain, key))
}

/// Takes every certificate: for registries that the user has said need not show a good one.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake means, in the words that people search for.
pub(crate) fn explain(error: &io::Error) -> ConnectError {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ConnectError::Handshake(error.to_string());
    };
    match inner {
        rustls::Error::InvalidMessage(_) => ConnectError::NotTls,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            ConnectError::Untrusted("x509: certificate signed by unknown authority".into())
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. } | CertificateError::NotValidYet,
        ) => ConnectError::Untrusted("x509: certificate has expired or is not yet valid".into()),
        rustls::Error::InvalidCertificate(other) => ConnectError::Untrusted(format!("x509: {other}")),
        other => ConnectError::Tls(other.to_string()),
    }
}
