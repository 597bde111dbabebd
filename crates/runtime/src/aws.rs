//! The AWS configuration of a function: like `aws_config::load_from_env`, without what a function never needs.
//!
//! Two things make the usual set-up slow to start. It looks for credentials where there are none (a function has
//! them in its environment), and it reads the system's root certificates, hundreds of files, twice. A function talks
//! to AWS only, so it trusts the roots of Amazon Trust Services only, which are part of the program
//! (<https://www.amazontrust.com/repository/>): that is stricter, and takes no time. Everything else about TLS is as
//! the SDK has it. `AWS_CA_BUNDLE`, as for every AWS SDK, names a file of certificates to trust instead: for a proxy,
//! for a partition of AWS with other roots, or the system's own bundle.

use std::time::Duration;

use aws_sdk_sqs::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_types::{
    SdkConfig,
    endpoint_config::AccountIdEndpointMode,
    sdk_config::SharedCredentialsProvider,
    service_config::{LoadServiceConfig, ServiceConfigKey},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{Error, setting};

const AMAZON_ROOTS: &str = include_str!("../amazon-root-ca.pem");

/// The AWS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// `AWS_CA_BUNDLE` names a file that cannot be used.
    #[error("AWS_CA_BUNDLE names {path}, which is no file of PEM certificates: {cause}")]
    Bundle {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// The configuration for the SDK's clients. Region, credentials and endpoints come from the environment, as Lambda
/// sets it.
pub fn aws() -> Result<SdkConfig, Error> {
    let roots = match std::env::var("AWS_CA_BUNDLE").ok().filter(|path| !path.is_empty()) {
        Some(path) => bundle(&path).map_err(|cause| AwsError::Bundle { path, cause })?,
        None => AMAZON_ROOTS.as_bytes().to_vec(),
    };
    let trust = TrustStore::empty().with_native_roots(false).with_pem_certificate(roots);
    let tls = TlsContext::builder().with_trust_store(trust).build()?;
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https();
    #[cfg(feature = "fault-points")]
    let http = crate::faults::watched(http);
    Ok(SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(setting("AWS_REGION")?))
        .credentials_provider(SharedCredentialsProvider::new(credentials()?))
        .http_client(http)
        .service_config(Environment)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(IdentityCache::no_cache())
        .timeout_config(timeouts())
        .account_id_endpoint_mode(AccountIdEndpointMode::Disabled)
        .build())
}

/// A process keeps the credentials that Lambda has put into its environment, so they are read once, not for each call.
fn credentials() -> Result<Credentials, Error> {
    let (id, secret) = (setting("AWS_ACCESS_KEY_ID")?, setting("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(id, secret, setting("AWS_SESSION_TOKEN").ok(), None, "Environment"))
}

/// A call that hangs must not use up a function's time (10 s).
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(7))
        .build()
}

/// Settings such as `AWS_ENDPOINT_URL`, and `AWS_ENDPOINT_URL_DYNAMODB` for one service, as every AWS SDK takes them
/// from the environment: <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>.
#[derive(Debug)]
struct Environment;

impl LoadServiceConfig for Environment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_uppercase().replace(' ', "_");
        let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        value(&format!("{}_{service}", key.env())).or_else(|| value(key.env()))
    }
}

/// The HTTP client panics on a certificate that it cannot read, so look first.
fn bundle(path: &str) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it has no certificate".into()) } else { Ok(pem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_roots_are_certificates() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/amazon-root-ca.pem");
        assert_eq!(bundle(path).unwrap(), AMAZON_ROOTS.as_bytes());
        assert_eq!(AMAZON_ROOTS.matches("BEGIN CERTIFICATE").count(), 5);
    }

    #[test]
    fn a_bundle_that_is_none_is_refused() {
        assert!(bundle("/nowhere").is_err());
        assert!(bundle(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).is_err());
    }
}
