//! What `sam local` needs to run functions in Docker against a local AWS on this machine: an address that containers
//! can reach, and an environment with that address.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};

use local_aws::Stack;
use traveller::{Client, ClientError};

/// The name under which containers reach the machine that they run on: built into Docker Desktop, set by [`ADD_HOST`]
/// elsewhere.
pub const HOST: &str = "host.docker.internal";
/// For `sam local … --add-host`.
pub const ADD_HOST: &str = "host.docker.internal:host-gateway";

/// Why functions cannot be run in Docker.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no `docker` program.
    #[error("`docker` cannot be run ({0}): install Docker")]
    NoClient(io::Error),
    /// There is no Docker engine, or this user may not use it.
    #[error("no Docker engine answers ({0}): start one, or see whether you may use it")]
    NoEngine(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the local AWS does not list its functions: {0}")]
    NoFunctions(serde_json::Error),
}

/// Runs a Docker command, and returns its output.
pub fn ask(arguments: &[&str]) -> Result<String, DockerError> {
    let asked = Command::new("docker").args(arguments).stdin(Stdio::null()).output().map_err(DockerError::NoClient)?;
    if asked.status.success() {
        return Ok(String::from_utf8_lossy(&asked.stdout).trim().to_owned());
    }
    let stderr = String::from_utf8_lossy(&asked.stderr);
    let stderr = stderr.trim().lines().next().unwrap_or("there is no output").to_owned();
    Err(DockerError::NoEngine(stderr))
}

/// The address of this machine that containers reach as [`HOST`]: that of the bridge, unless it was configured
/// differently.
pub fn host_address() -> Result<IpAddr, DockerError> {
    let format = "{{range .IPAM.Config}}{{.Gateway}} {{.Subnet}} {{end}}";
    let bridge = ask(&["network", "inspect", "bridge", "--format", format])?;
    // Where Docker has its own virtual machine, the bridge is there, and loopback here can be reached.
    let here = bridge.split_whitespace().filter_map(gateway).find(|address| TcpListener::bind((*address, 0)).is_ok());
    Ok(here.unwrap_or(Ipv4Addr::LOCALHOST).into())
}

/// The gateway, or that of a subnet, which is its first address: some engines report only the subnet.
fn gateway(text: &str) -> Option<Ipv4Addr> {
    match text.split_once('/') {
        None => text.parse().ok(),
        Some((subnet, _)) => Some(Ipv4Addr::from_bits(subnet.parse::<Ipv4Addr>().ok()?.to_bits().checked_add(1)?)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Functions {
    functions: Vec<Function>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Function {
    function_name: String,
    environment: Environment,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    variables: BTreeMap<String, String>,
}

/// The functions' environment as deployed, for `sam local … --env-vars`: SAM itself does not know the names of tables
/// and queues. The endpoint is that of the local AWS as containers see it.
pub async fn env_vars(stack: &Stack) -> Result<Value, DockerError> {
    let endpoint = stack.endpoint.as_deref().unwrap_or_default();
    let listed = Client::new(endpoint)?.send("GET", "/2015-03-31/functions/?MaxItems=50", &[], "").await?;
    let Functions { functions } = listed.json().map_err(DockerError::NoFunctions)?;
    let port = endpoint.rsplit(':').next().unwrap_or_default();
    let of = |function: Function| {
        let mut variables = function.environment.variables;
        variables.insert("AWS_ENDPOINT_URL".into(), format!("http://{HOST}:{port}"));
        (logical_id(&function.function_name), json!(variables))
    };
    Ok(functions.into_iter().map(of).collect())
}

/// The function's name in the template: `FlightFunction` for `harmony-flight` and `flight`.
pub fn logical_id(name: &str) -> String {
    let name = name.rsplit('-').next().unwrap_or(name);
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}Function", first.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_has_a_gateway() {
        assert_eq!(gateway("172.17.0.1"), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(gateway("172.17.0.0/16"), Some(Ipv4Addr::new(172, 17, 0, 1)));
        for none in ["fd00::1", "fd00::/64", "", "255.255.255.255/32"] {
            assert_eq!(gateway(none), None, "{none}");
        }
    }

    #[test]
    fn functions_are_named_after_their_folders() {
        assert_eq!(logical_id("my-stack-flight"), "FlightFunction");
        assert_eq!(logical_id("api"), "ApiFunction");
        assert_eq!(logical_id(""), "Function");
    }
}
