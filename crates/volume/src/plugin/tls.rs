//! Plugins that are reached by TLS: what `TLSConfig` of their `.json` says (go-connections, `tlsconfig.Options`).

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use serde::Deserialize;

/// Whom to believe, and what to show. Files are read anew for each connection, so that they may be renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Tls {
    /// Authorities beside the host's.
    #[serde(rename = "CAFile", deserialize_with = "super::or_default")]
    authorities: PathBuf,
    #[serde(deserialize_with = "super::or_default")]
    cert_file: PathBuf,
    #[serde(deserialize_with = "super::or_default")]
    key_file: PathBuf,
    /// Anybody may answer.
    #[serde(deserialize_with = "super::or_default")]
    insecure_skip_verify: bool,
    /// The authorities of `CAFile` alone.
    #[serde(deserialize_with = "super::or_default")]
    exclusive_root_pools: bool,
}

fn fail(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("TLSConfig: {}: {why}", path.display()))
}

impl Tls {
    /// What is asked for and cannot be: files that are no absolute paths, a certificate without its key.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, path) in [("CAFile", &self.authorities), ("CertFile", &self.cert_file), ("KeyFile", &self.key_file)]
        {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                return Err(format!("TLSConfig: {name} `{}` is not an absolute path", path.display()));
            }
        }
        if self.cert_file.as_os_str().is_empty() != self.key_file.as_os_str().is_empty() {
            return Err("TLSConfig: CertFile and KeyFile belong together: give both, or none".into());
        }
        Ok(())
    }

    /// Speaks TLS with who listens at the other end of `stream`, and is to be `host`.
    ///
    /// # Errors
    /// When a file cannot be used; what is wrong with who answers comes with the first bytes.
    pub(crate) fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("{host} is no name of a host")))?;
        let connection = ClientConnection::new(Arc::new(self.config()?), name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }

    fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        if self.cert_file.as_os_str().is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let key = std::fs::read(&self.key_file).map_err(|error| fail(&self.key_file, &error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| fail(&self.key_file, &error))?;
        let shown = builder.with_client_auth_cert(certificates(&self.cert_file)?, key);
        shown.map_err(|error| fail(&self.cert_file, &error))
    }

    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if !self.exclusive_root_pools {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if !self.authorities.as_os_str().is_empty() {
            for certificate in certificates(&self.authorities)? {
                roots.add(certificate).map_err(|error| fail(&self.authorities, &error))?;
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(path).map_err(|error| fail(path, &error))?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let list = list.map_err(|error| fail(path, &error))?;
    if list.is_empty() { Err(fail(path, &"no certificate in it")) } else { Ok(list) }
}

/// Encrypts to whoever answers, as `InsecureSkipVerify` wants it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::process::Command;

    use rustls::server::WebPkiClientVerifier;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::Plugins;

    /// An authority with a certificate for a server on the loopback and one for a client; false without `openssl`.
    fn make_certificates(dir: &Path) -> bool {
        std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        std::fs::write(dir.join("client"), "extendedKeyUsage=clientAuth\n").unwrap();
        for line in [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=plugins -keyout ca-key.pem -out ca.pem",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server-key.pem -out server.csr",
            "x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile names -out server.pem",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=client -keyout key.pem -out client.csr",
            "x509 -req -in client.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile client -out cert.pem",
        ] {
            let Ok(made) = Command::new("openssl").args(line.split(' ')).current_dir(dir).output() else {
                println!("skipped: `openssl` is not installed");
                return false;
            };
            assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
        }
        true
    }

    /// A plugin that wants to know who asks, for `count` connections.
    fn serve(dir: &Path, count: usize) -> u16 {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&dir.join("ca.pem")).unwrap().remove(0)).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&std::fs::read(dir.join("server-key.pem")).unwrap()).unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(verifier);
        let config = config.with_single_cert(certificates(&dir.join("server.pem")).unwrap(), key).unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(count) {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                // Who is refused asks nothing.
                let mut asked = [0; 4096];
                if stream.read(&mut asked).is_ok_and(|length| length > 0) {
                    let answer = br#"{"Implements":["VolumeDriver"]}"#;
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    let _ = stream.write_all(&[head.as_bytes(), answer].concat());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        port
    }

    #[test]
    fn both_sides_prove_who_they_are() {
        let dir = tempfile::tempdir().unwrap();
        if !make_certificates(dir.path()) {
            return;
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let shown = format!(r#""CertFile":"{}","KeyFile":"{}""#, at("cert.pem"), at("key.pem"));
        let believed = format!(r#""CAFile":"{}""#, at("ca.pem"));
        let port = serve(dir.path(), 6);
        let ask = |host: &str, tls: &str| {
            let text = format!(r#"{{"Name":"one","Addr":"https://{host}:{port}","TLSConfig":{{{tls}}}}}"#);
            std::fs::write(dir.path().join("one.json"), text).unwrap();
            Plugins::in_dirs(vec![dir.path().to_owned()]).driver("one").map(drop)
        };
        ask("127.0.0.1", &format!("{believed},{shown}")).unwrap();
        ask("127.0.0.1", &format!(r#"{shown},"InsecureSkipVerify":true"#)).unwrap();
        // Nobody's authority, another name, and nothing to show.
        let error = ask("127.0.0.1", &shown).unwrap_err();
        assert!(error.contains("UnknownIssuer"), "{error}");
        let error = ask("127.0.0.2", &format!("{believed},{shown}")).unwrap_err();
        assert!(error.contains("not valid for name"), "{error}");
        assert!(ask("127.0.0.1", &believed).is_err());
        let error = ask("127.0.0.1", &format!(r#""CAFile":"{}""#, at("none.pem"))).unwrap_err();
        assert!(error.contains("none.pem: No such file"), "{error}");
    }
}
