//! The AWS configuration of a function: like `aws_config::load_from_env`, without what a function never needs.
//!
//! Two things make the usual set-up slow to start: it looks for credentials in places where there are none (a function
//! has them in its environment), and it reads the system's root certificates, hundreds of files, twice. A function only
//! talks to AWS, so it trusts only the roots of Amazon Trust Services, which are compiled in
//! (<https://www.amazontrust.com/repository/>): that is stricter, and takes no time. Everything else about TLS is the
//! SDK's default. As in every AWS SDK, `AWS_CA_BUNDLE` names a file of certificates to trust instead: for a proxy, for
//! a partition of AWS with other roots, or the system's own bundle. `AWS_USE_FIPS_ENDPOINT` and
//! `AWS_USE_DUALSTACK_ENDPOINT` work as in every AWS SDK too:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-endpoints.html>.

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

use crate::{Error, MissingSetting};

const AMAZON_ROOTS: &str = include_str!("../amazon-root-ca.pem");

/// Why the AWS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// `AWS_CA_BUNDLE` names a file that cannot be used.
    #[error("AWS_CA_BUNDLE names {path}, which is not a file of PEM certificates: {cause}")]
    Bundle {
        /// The path in the variable.
        path: String,
        /// What is wrong with the file.
        cause: String,
    },
    /// A switch is neither `true` nor `false`.
    #[error("the environment variable {name} must be true or false, not {value:?}")]
    Switch {
        /// The environment variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

/// The configuration for the SDK's clients. Region, credentials and endpoints come from the environment, where Lambda
/// sets them.
pub fn aws() -> Result<SdkConfig, Error> {
    Environment(|name| std::env::var(name).ok()).configuration()
}

/// Returns the value of an environment variable. A function, so that tests can replace it.
#[derive(Clone, Copy, Debug)]
struct Environment(fn(&str) -> Option<String>);

impl Environment {
    /// The value of a variable. An empty one counts as not set.
    fn get(self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn require(self, name: &'static str) -> Result<String, MissingSetting> {
        self.get(name).ok_or(MissingSetting(name))
    }

    fn is_on(self, name: &'static str) -> Result<bool, AwsError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.to_ascii_lowercase().parse().map_err(|_| AwsError::Switch { name, value })
    }

    fn configuration(self) -> Result<SdkConfig, Error> {
        let roots = match self.get("AWS_CA_BUNDLE") {
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
            .region(Region::new(self.require("AWS_REGION")?))
            .use_fips(self.is_on("AWS_USE_FIPS_ENDPOINT")?)
            .use_dual_stack(self.is_on("AWS_USE_DUALSTACK_ENDPOINT")?)
            .credentials_provider(SharedCredentialsProvider::new(self.credentials()?))
            .http_client(http)
            .service_config(self)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(timeouts())
            .account_id_endpoint_mode(AccountIdEndpointMode::Disabled)
            .build())
    }

    /// A process keeps the credentials that Lambda puts into its environment, so they are read once, not for each call.
    fn credentials(self) -> Result<Credentials, MissingSetting> {
        let (id, secret) = (self.require("AWS_ACCESS_KEY_ID")?, self.require("AWS_SECRET_ACCESS_KEY")?);
        Ok(Credentials::new(id, secret, self.get("AWS_SESSION_TOKEN"), None, "Environment"))
    }
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
impl LoadServiceConfig for Environment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_uppercase().replace(' ', "_");
        self.get(&format!("{}_{service}", key.env())).or_else(|| self.get(key.env()))
    }
}

/// Checks the bundle first, because the HTTP client panics on a certificate that it cannot read.
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
    use aws_sdk_sqs::{
        Client, Config,
        config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
        error::BoxError,
    };

    use super::*;

    /// Reports where a request would be sent, instead of sending it.
    #[derive(Debug)]
    struct Stop;

    impl Intercept for Stop {
        fn name(&self) -> &'static str {
            "Stop"
        }

        fn read_before_transmit(
            &self,
            context: &BeforeTransmitInterceptorContextRef<'_>,
            _components: &RuntimeComponents,
            _config: &mut ConfigBag,
        ) -> Result<(), BoxError> {
            Err(format!("to <{}>", context.request().uri()).into())
        }
    }

    /// The endpoint that an SQS client uses in this environment, or why there is none.
    async fn endpoint(variable: Variables) -> Result<String, Error> {
        let sdk = Environment(variable).configuration()?;
        let client = Client::from_conf(Config::from(&sdk).to_builder().interceptor(Stop).build());
        let stopped = format!("{:?}", client.list_queues().send().await.unwrap_err());
        let uri = stopped
            .split_once("to <")
            .and_then(|(_, rest)| rest.split_once(">"))
            .unwrap_or_else(|| panic!("{stopped}"));
        Ok(uri.0.to_owned())
    }

    /// The variables of an environment.
    type Variables = fn(&str) -> Option<String>;

    macro_rules! environment {
        ($region:literal $(, $($name:literal)|+ => $value:literal)?) => {
            |name| {
                let value = match name {
                    "AWS_REGION" => $region,
                    "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "test",
                    $($($name)|+ => $value,)?
                    _ => return None,
                };
                Some(value.to_owned())
            }
        };
    }

    #[tokio::test]
    async fn a_client_turns_to_the_endpoint_that_the_environment_asks_for() {
        let endpoints: [(Variables, &str); 9] = [
            (environment!("us-east-1"), "https://sqs.us-east-1.amazonaws.com/"),
            (environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" => "true"), "https://sqs-fips.us-east-1.amazonaws.com/"),
            (environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" => "TRUE"), "https://sqs-fips.us-east-1.amazonaws.com/"),
            (environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" => "false"), "https://sqs.us-east-1.amazonaws.com/"),
            (environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" => ""), "https://sqs.us-east-1.amazonaws.com/"),
            (environment!("us-east-1", "AWS_USE_DUALSTACK_ENDPOINT" => "true"), "https://sqs.us-east-1.api.aws/"),
            (
                environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" | "AWS_USE_DUALSTACK_ENDPOINT" => "true"),
                "https://sqs-fips.us-east-1.api.aws/",
            ),
            (environment!("cn-north-1"), "https://sqs.cn-north-1.amazonaws.com.cn/"),
            (environment!("us-east-1", "AWS_ENDPOINT_URL" => "http://127.0.0.1:4566"), "http://127.0.0.1:4566/"),
        ];
        for (variable, expected) in endpoints {
            assert_eq!(endpoint(variable).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_is_neither_on_nor_off_is_refused() {
        let error = endpoint(environment!("us-east-1", "AWS_USE_FIPS_ENDPOINT" => "yes")).await.unwrap_err();
        let expected = "the environment variable AWS_USE_FIPS_ENDPOINT must be true or false, not \"yes\"";
        assert_eq!(error.to_string(), expected);
    }

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
