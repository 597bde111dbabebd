//! Which AWS the environment and the profile mean. It is decided here, once, as every AWS SDK decides it, and the SDK's
//! clients, the SAM CLI and the client of the API all follow.
//!
//! Endpoint: `AWS_ENDPOINT_URL_CLOUDFORMATION`, `AWS_ENDPOINT_URL`, or `endpoint_url` of the profile, which is that of
//! the stack (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>). Credentials for AWS: the SDK's
//! chain (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

use std::{env, process::Command};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider,
};
use aws_sdk_dynamodb::config::{AppName, Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// The region on an emulator if none is said.
pub(crate) const REGION: &str = "eu-central-1";
/// Both parts of the credentials that emulators take.
const KEY: &str = "test";

/// Why it is not clear which AWS is meant, or how to get in.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// AWS has regions, and none is chosen.
    #[error("no AWS region is set: set AWS_REGION, or a region in the profile")]
    NoRegion,
    /// The stack is on AWS, and the environment says that an emulator is meant.
    #[error(
        "the stack is on AWS, but the environment or the profile sends requests to {0}: unset AWS_ENDPOINT_URL, or set \
         AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"
    )]
    Elsewhere(String),
}

/// AWS, or something that stands for it.
#[derive(Clone, Debug)]
pub enum Cloud {
    /// AWS, with region and credentials.
    Aws(Box<SdkConfig>),
    /// An emulator such as LocalStack.
    Emulator {
        /// Where it is, without a slash at the end.
        endpoint: String,
        /// The region.
        region: String,
    },
}

impl Cloud {
    /// What environment and profile say.
    pub async fn resolve() -> Result<Self, CloudError> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // Without the region of the machine that it runs on: SAM does not ask for that either, and on a machine that is
        // not of AWS it takes seconds to find out that there is none.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
        let region = region.or_else(ProfileFileRegionProvider::builder().build());
        Self::of(aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(region).load().await)
    }

    fn of(sdk: SdkConfig) -> Result<Self, CloudError> {
        let key = ServiceConfigKey::builder()
            .service_id("CloudFormation")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .unwrap_or_else(|_| unreachable!()); // all three are there
        let settings = Settings(sdk.clone());
        if let Some(endpoint) = settings.load_config(key).filter(|endpoint| !is_aws(endpoint)) {
            let region = sdk.region().map_or(REGION, |region| region.as_ref()).to_owned();
            return Ok(Self::Emulator { endpoint: endpoint.trim_end_matches('/').to_owned(), region });
        }
        if sdk.region().is_none() {
            return Err(CloudError::NoRegion);
        }
        Ok(Self::Aws(Box::new(sdk.into_builder().service_config(settings).build())))
    }

    /// The configuration for the SDK's clients.
    pub fn sdk(self) -> SdkConfig {
        match self {
            Self::Aws(sdk) => *sdk,
            Self::Emulator { endpoint, region } => emulator(&endpoint, region),
        }
    }

    /// The SAM CLI. It gets the region and the credentials that were found here; where none were, it may know other ways
    /// to them, such as a profile of IAM Identity Center. An emulator gets those that everybody uses there, whatever the
    /// environment has, so that no real ones go astray and no profile leads to AWS.
    pub async fn sam(&self) -> Command {
        let mut sam = sam();
        let (region, found) = match self {
            Self::Emulator { endpoint, region } => {
                let is_profile = |name: &str| ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].contains(&name);
                for (name, _) in env::vars_os() {
                    let name = name.to_string_lossy();
                    if is_profile(&name) || name.starts_with("AWS_ENDPOINT_URL_") {
                        sam.env_remove(&*name);
                    }
                }
                sam.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
                sam.env("AWS_ENDPOINT_URL", endpoint).env_remove("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
                (region.as_str(), Some(emulator_credentials()))
            }
            Self::Aws(sdk) => {
                let found = match sdk.credentials_provider() {
                    Some(provider) => provider.provide_credentials().await.ok(),
                    None => None,
                };
                (sdk.region().map_or(REGION, |region| region.as_ref()), found)
            }
        };
        sam.env("AWS_REGION", region).env("AWS_DEFAULT_REGION", region); // SAM knows the second name of it only
        let Some(credentials) = found else { return sam };
        sam.env("AWS_ACCESS_KEY_ID", credentials.access_key_id());
        sam.env("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key()).env_remove("AWS_SECURITY_TOKEN");
        match credentials.session_token() {
            Some(token) => sam.env("AWS_SESSION_TOKEN", token),
            None => sam.env_remove("AWS_SESSION_TOKEN"),
        };
        sam
    }
}

/// Whether an endpoint is of AWS itself, such as that of a VPC
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/vpc-interface-endpoints.html>).
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.parse::<http::Uri>().ok().and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"].iter().any(|domain| host.ends_with(domain))
}

/// What the environment and the profile say of a service. Set to nothing is not set.
#[derive(Debug)]
struct Settings(SdkConfig);

impl LoadServiceConfig for Settings {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        self.0.service_config()?.load_config(key).filter(|value| !value.is_empty())
    }
}

/// The configuration for the SDK's clients on a local AWS or another emulator. Nothing of the environment gets in, so
/// that no profile leads to AWS.
pub(crate) fn emulator(endpoint: &str, region: String) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(emulator_credentials()))
        .http_client(Builder::new().build_http())
        .app_name(AppName::new(env!("CARGO_PKG_NAME")).unwrap_or_else(|_| unreachable!())) // letters only
        .build()
}

fn emulator_credentials() -> Credentials {
    Credentials::new(KEY, KEY, None, None, "a local AWS takes any")
}

/// The SAM CLI: the one that `make deploy` has installed, or else the user's.
pub fn sam() -> Command {
    let own = crate::checkout::root().map(|root| root.join(".venv-dev/bin")).ok();
    let mut sam = Command::new("sam");
    if let Some(own) = own.filter(|own| own.join("sam").exists()) {
        sam = Command::new(own.join("python"));
        sam.args(["-I", "-m", "samcli"]); // isolated from the user's own settings of Python
    }
    sam.env("SAM_CLI_TELEMETRY", "0");
    sam
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says of every service that it is there; what is read from environment and profile is tested with the program.
    #[derive(Debug)]
    struct Everything(&'static str);

    impl LoadServiceConfig for Everything {
        fn load_config(&self, _: ServiceConfigKey<'_>) -> Option<String> {
            Some(self.0.to_owned())
        }
    }

    fn of(endpoint: &'static str, region: Option<&'static str>) -> Result<Cloud, CloudError> {
        let credentials = Credentials::new("AKIAREAL", "secret", Some("token".into()), None, "test");
        let sdk = SdkConfig::builder()
            .service_config(Everything(endpoint))
            .region(region.map(Region::new))
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        Cloud::of(sdk.build())
    }

    /// What the SAM CLI is given in its environment; none inside if that is removed.
    async fn sam_env(cloud: &Cloud, name: &str) -> Option<Option<String>> {
        let sam = cloud.sam().await;
        let value = sam.get_envs().find(|(key, _)| *key == name)?.1;
        Some(value.map(|value| value.to_string_lossy().into_owned()))
    }

    #[test]
    fn an_endpoint_that_is_not_of_aws_is_an_emulator() {
        for (given, region, expected) in [
            ("http://localhost:4566/", None, Some(REGION)),
            ("http://localhost:4566", Some("eu-west-1"), Some("eu-west-1")),
            ("", Some("eu-west-1"), None),
            ("https://vpce-1.cloudformation.eu-west-1.vpce.amazonaws.com", Some("eu-west-1"), None),
        ] {
            match (of(given, region).unwrap(), expected) {
                (Cloud::Emulator { endpoint, region }, Some(expected)) => {
                    assert_eq!((endpoint.as_str(), region.as_str()), ("http://localhost:4566", expected));
                }
                (Cloud::Aws(sdk), None) => assert_eq!(sdk.region().unwrap().as_ref(), "eu-west-1"),
                (cloud, _) => panic!("{given}: {cloud:?}"),
            }
        }
        assert!(matches!(of("", None), Err(CloudError::NoRegion)));
    }

    #[tokio::test]
    async fn an_emulator_gets_no_credentials_of_the_environment() {
        let there = of("http://localhost:4566", None).unwrap();
        let given = async |name: &str| sam_env(&there, name).await.flatten();
        assert_eq!(given("AWS_ENDPOINT_URL").await.as_deref(), Some("http://localhost:4566"));
        assert_eq!(given("AWS_ACCESS_KEY_ID").await.as_deref(), Some(KEY));
        assert_eq!(given("AWS_SHARED_CREDENTIALS_FILE").await.as_deref(), Some("/dev/null"));
        assert_eq!(sam_env(&there, "AWS_SESSION_TOKEN").await, Some(None), "removed");
        let sdk = there.sdk();
        assert_eq!(sdk.endpoint_url(), Some("http://localhost:4566"));
        let credentials = sdk.credentials_provider().unwrap().provide_credentials().await.unwrap();
        assert_eq!(credentials.access_key_id(), KEY);
    }

    #[tokio::test]
    async fn sam_gets_what_the_sdk_found() {
        let aws = of("", Some("eu-west-1")).unwrap();
        let given = async |name: &str| sam_env(&aws, name).await.flatten();
        assert_eq!(given("AWS_ACCESS_KEY_ID").await.as_deref(), Some("AKIAREAL"));
        assert_eq!(given("AWS_SESSION_TOKEN").await.as_deref(), Some("token"));
        assert_eq!(given("AWS_DEFAULT_REGION").await.as_deref(), Some("eu-west-1"));
        assert_eq!(given("AWS_ENDPOINT_URL").await, None);
    }
}
