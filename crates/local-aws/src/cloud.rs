//! Which AWS the environment and the profile select. It is decided here, once, as every AWS SDK decides it; the SDK's
//! clients, the SAM CLI and the client of the API all follow.
//!
//! The endpoint: `AWS_ENDPOINT_URL_CLOUDFORMATION`, `AWS_ENDPOINT_URL`, or `endpoint_url` of the profile. It is the
//! endpoint of the stack (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>). Credentials for
//! AWS come from the SDK's chain (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

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

/// The region on an emulator by default.
pub(crate) const REGION: &str = "eu-central-1";
/// Both parts of the credentials for emulators, which accept any.
const KEY: &str = "test";

/// Why it is unclear which AWS to use, or how to authenticate.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// AWS has regions, and none is selected.
    #[error("no AWS region is set: set AWS_REGION, or a region in the profile")]
    NoRegion,
    /// The stack is on AWS, but the environment selects an emulator.
    #[error(
        "the stack is on AWS, but the environment or the profile sends requests to {0}: unset AWS_ENDPOINT_URL, or set \
         AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"
    )]
    Elsewhere(String),
}

/// AWS, or an emulator.
#[derive(Clone, Debug)]
pub enum Cloud {
    Aws(Box<SdkConfig>),
    Emulator {
        /// Without a trailing slash.
        endpoint: String,
        region: String,
    },
}

impl Cloud {
    /// The AWS that environment and profile select.
    pub async fn resolve() -> Result<Self, CloudError> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // Without the region of the machine that this runs on: SAM does not use it either, and on a machine outside AWS
        // it takes seconds to find out that there is none.
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
            .unwrap_or_else(|_| unreachable!()); // all three are set
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

    /// The SAM CLI. It gets the region and the credentials that were found here; if there are none, it may know other
    /// ways, such as a profile of IAM Identity Center. For an emulator it gets the usual test credentials, whatever the
    /// environment has, so that no real ones leak and no profile leads to AWS.
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
        sam.env("AWS_REGION", region).env("AWS_DEFAULT_REGION", region); // SAM reads only the second name
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

/// Whether an endpoint belongs to AWS itself, such as that of a VPC
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/vpc-interface-endpoints.html>).
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.parse::<http::Uri>().ok().and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"].iter().any(|domain| host.ends_with(domain))
}

/// The environment's and the profile's settings for a service. An empty variable counts as not set.
#[derive(Debug)]
struct Settings(SdkConfig);

impl LoadServiceConfig for Settings {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        self.0.service_config()?.load_config(key).filter(|value| !value.is_empty())
    }
}

/// The configuration for the SDK's clients on an emulator. It ignores the environment, so that no profile leads to AWS.
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

/// The SAM CLI: the one that `make deploy` installed, or else the user's.
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

    /// Has the same value for every setting of every service. Reading environment and profile is tested with the whole
    /// program.
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

    /// The value of this variable in the SAM CLI's environment; the inner option is none if it is removed.
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
