//! From Lambda's JSON to what a handler takes, and back.

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use http::{Request, Response};
use lambda_runtime::{Diagnostic, Error, LambdaEvent, run, service_fn};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

/// Serves invocations whose payload is the command itself. An error becomes the function's error; `error_type` names
/// it for `Retry` and `Catch`.
pub async fn serve_commands<R, E>(
    handle: impl AsyncFn(Value) -> Result<R, E>,
    error_type: fn(&E) -> &'static str,
) -> Result<(), Error>
where
    R: Serialize,
    E: std::error::Error,
{
    let handle = &handle;
    run(service_fn(move |event: LambdaEvent<Value>| {
        Box::pin(async move {
            handle(event.payload).await.map_err(|error| Diagnostic {
                error_type: error_type(&error).to_owned(),
                error_message: error.to_string(),
            })
        })
    }))
    .await
}

/// Serves requests to a REST API of API Gateway (Lambda proxy integration). The handler is told who asks: the IAM
/// user or role, the authorizer's principal, or `anonymous`.
pub async fn serve_http(handle: impl AsyncFn(&str, Request<Vec<u8>>) -> Response<String>) -> Result<(), Error> {
    let handle = &handle;
    run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        Box::pin(async move {
            let event: ApiGatewayProxyRequest =
                serde_json::from_str(event.payload.get()).map_err(|error| Diagnostic {
                    error_type: "InvalidCommand".into(),
                    error_message: format!("the payload is no request of a REST API: {error}"),
                })?;
            let caller = caller(&event);
            let answer = handle(&caller, request(event)).await;
            Ok::<_, Diagnostic>(response(answer))
        })
    }))
    .await
}

fn caller(event: &ApiGatewayProxyRequest) -> String {
    let authorizer = event.request_context.authorizer.fields.get("principalId").and_then(Value::as_str);
    let iam = event.request_context.identity.user_arn.as_deref();
    iam.or(authorizer).unwrap_or("anonymous").to_owned()
}

fn request(event: ApiGatewayProxyRequest) -> Request<Vec<u8>> {
    let body = event.body.unwrap_or_default();
    let body = if event.is_base64_encoded { decoded(&body) } else { body.into_bytes() };
    let mut request = Request::new(body);
    *request.method_mut() = event.http_method;
    *request.headers_mut() = event.headers;
    if let Some(uri) = event.path.and_then(|path| path.parse().ok()) {
        *request.uri_mut() = uri;
    }
    request
}

fn response(answer: Response<String>) -> ApiGatewayProxyResponse {
    let (parts, body) = answer.into_parts();
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = parts.status.as_u16().into();
    response.headers = parts.headers;
    response.body = Some(body.into());
    response
}

/// What API Gateway encoded. If it is no base64 after all it is no text either, and left to be refused as such.
fn decoded(body: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(body).unwrap_or_else(|_| vec![0xff])
}
