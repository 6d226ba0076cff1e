//! TLS configurations of both sides: the certificate we show to clients, how
//! far we trust a backend's, and the certificate we show to it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

/// Largest certificate, key or CA file read, in bytes; system CA bundles are
/// about 250 KiB.
const PEM_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Name of the self-signed certificate's file in the state directory.
const CERT_FILE: &str = "tls-cert.pem";
/// Name of its key's file.
const KEY_FILE: &str = "tls-key.pem";

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: String,
        /// What is missing or wrong.
        what: &'static str,
    },
    /// rustls refuses the combination.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The self-signed pair cannot be made.
    #[error("self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// How a backend's connections use TLS (`tls:` of a backend in proxy.yaml).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never.
    Off,
    /// A client's leg: as the client's own connection, if the backend offers
    /// it. Ours: if the backend offers it. Its certificate is not checked.
    #[default]
    Preferred,
    /// Always; its certificate is not checked.
    Required,
    /// Always; its certificate must be signed by a known authority and name
    /// the host we connect to.
    Verify,
}

/// A certificate's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// PEM file of the chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

impl Pair {
    /// Of two settings; None where the first is empty.
    pub fn of(cert: &str, key: &str) -> Option<Pair> {
        (!cert.is_empty()).then(|| Pair {
            cert: cert.into(),
            key: key.into(),
        })
    }

    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let (cert, key) = (&self.cert, &self.key);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read_file(cert)?)
            .collect::<Result<_, _>>()
            .map_err(|_| content(cert, "not a PEM certificate chain"))?;
        if chain.is_empty() {
            return Err(content(cert, "holds no certificate"));
        }
        let key_bytes = zeroize::Zeroizing::new(read_file(key)?);
        let key = PrivateKeyDer::from_pem_slice(&key_bytes)
            .map_err(|_| content(key, "holds no private key"))?;
        Ok((chain, key))
    }
}

/// What is asked of clients' certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAuth {
    /// PEM file of the authorities that sign them.
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub required: bool,
}

/// The client side's configuration from PEM files.
pub fn server_config(
    pair: &Pair,
    clients: Option<&ClientAuth>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = pair.read()?;
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(auth) => {
            let roots = Arc::new(roots(Some(&auth.ca))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if auth.required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let built = verifier.build();
            let verifier = built.map_err(|_| content(&auth.ca, "no usable authorities"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// A self-signed pair in `dir`, which is made on the first start and kept, so
/// that clients that pin it stay content. The key's file is readable by its
/// owner only.
pub fn self_signed(dir: &Path) -> Result<Pair, TlsError> {
    let (cert, key) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
    if !(cert.exists() && key.exists()) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key_pem = zeroize::Zeroizing::new(pair.signing_key.serialize_pem());
        write_private(&key, key_pem.as_bytes())?;
        write_private(&cert, pair.cert.pem().as_bytes())?;
    }
    Ok(Pair { cert, key })
}

/// A leg's configurations, which may be loaded anew while legs use them.
pub struct LegTls {
    mode: TlsMode,
    ca: Option<PathBuf>,
    pair: Option<Pair>,
    current: ArcSwap<LegConfigs>,
}

struct LegConfigs {
    bare: Arc<ClientConfig>,
    certified: Option<Arc<ClientConfig>>,
}

impl LegTls {
    /// Reads the files; None for [`TlsMode::Off`]. `ca` is the PEM file of the
    /// authorities to trust under [`TlsMode::Verify`]; it is required there
    /// (MySQL's VERIFY modes require it too) and unused otherwise. `pair` is
    /// the certificate to show.
    pub fn load(
        mode: TlsMode,
        ca: Option<&Path>,
        pair: Option<Pair>,
    ) -> Result<Option<Arc<LegTls>>, TlsError> {
        if mode == TlsMode::Off {
            return Ok(None);
        }
        let configs = leg_configs(mode, ca, pair.as_ref())?;
        Ok(Some(Arc::new(LegTls {
            mode,
            ca: ca.map(Path::to_path_buf),
            pair,
            current: ArcSwap::from_pointee(configs),
        })))
    }

    /// Reads the files again. Connections that are there are not touched; on
    /// an error nothing changes.
    pub fn reload(&self) -> Result<(), TlsError> {
        let configs = leg_configs(self.mode, self.ca.as_deref(), self.pair.as_ref())?;
        self.current.store(Arc::new(configs));
        Ok(())
    }

    /// The files it was read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let pair = self.pair.iter().flat_map(|p| [&p.cert, &p.key]);
        self.ca.iter().chain(pair).cloned().collect()
    }

    /// What a new connection uses, with the certificate (if there is one) or
    /// without.
    pub fn config(&self, certified: bool) -> Arc<ClientConfig> {
        let current = self.current.load();
        match &current.certified {
            Some(config) if certified => config.clone(),
            _ => current.bare.clone(),
        }
    }
}

fn leg_configs(
    mode: TlsMode,
    ca: Option<&Path>,
    pair: Option<&Pair>,
) -> Result<LegConfigs, TlsError> {
    Ok(LegConfigs {
        bare: client_config(mode, ca, None)?,
        certified: pair.map(|p| client_config(mode, ca, Some(p))).transpose()?,
    })
}

fn client_config(
    mode: TlsMode,
    ca: Option<&Path>,
    pair: Option<&Pair>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match mode {
        TlsMode::Verify => builder.with_root_certificates(roots(ca)?),
        _ => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider()))),
    };
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = pair.read()?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    // Backends choose no certificate by name, and addresses are often not names.
    config.enable_sni = mode == TlsMode::Verify;
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let Some(path) = ca else {
        return Err(TlsError::Content {
            path: "ca".to_owned(),
            what: "tls: verify needs a CA file",
        });
    };
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&read_file(path)?) {
        let cert = cert.map_err(|_| content(path, "not a PEM certificate"))?;
        roots.add(cert)?;
    }
    if roots.is_empty() {
        return Err(content(path, "holds no certificate"));
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn content(path: &Path, what: &'static str) -> TlsError {
    TlsError::Content {
        path: path.display().to_string(),
        what,
    }
}

fn file(path: &Path) -> impl Fn(std::io::Error) -> TlsError {
    let path = path.display().to_string();
    move |source| TlsError::File {
        path: path.clone(),
        source,
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let size = fs::metadata(path).map_err(file(path))?.len();
    if size > PEM_FILE_MAX {
        return Err(content(path, "too large for a PEM file"));
    }
    fs::read(path).map_err(file(path))
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(path).map_err(file(path))?;
    out.write_all(bytes).map_err(file(path))?;
    out.sync_all().map_err(file(path))
}

/// Accepts every certificate, as MySQL clients do under PREFERRED and
/// REQUIRED: guards against listeners only. The handshake's signatures are
/// still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_pair_is_made_once_and_kept_private() -> Result<(), TlsError> {
        let dir = std::env::temp_dir().join(format!("lockstep-tls-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(file(&dir))?;
        let pair = self_signed(&dir)?;
        server_config(&pair, None)?;
        let cert = dir.join(CERT_FILE);
        let first = fs::read(&cert).map_err(file(&cert))?;
        self_signed(&dir)?;
        assert_eq!(fs::read(&cert).map_err(file(&cert))?, first);
        #[cfg(unix)]
        {
            let key = dir.join(KEY_FILE);
            let permissions = fs::metadata(&key).map_err(file(&key))?.permissions();
            let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
            assert_eq!(mode & 0o777, 0o600);
        }
        // The pair is its own authority, so it can be verified against itself.
        assert!(LegTls::load(TlsMode::Verify, Some(&cert), None)?.is_some());
        fs::remove_dir_all(&dir).map_err(file(&dir))
    }

    #[test]
    fn verify_needs_an_authority_and_off_needs_nothing() -> Result<(), TlsError> {
        let load = |mode, ca| LegTls::load(mode, ca, None);
        assert!(load(TlsMode::Verify, None).is_err());
        assert!(load(TlsMode::Verify, Some(Path::new("/nonexistent"))).is_err());
        assert!(load(TlsMode::Off, None)?.is_none());
        assert!(load(TlsMode::Preferred, None)?.is_some());
        Ok(())
    }
}
