//! Checks that `sms.public_url` leads to an SMS worker. If it leads elsewhere, receipts are lost.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::timeout;

use super::Findings;
use crate::client::client;
use crate::config::Config;
use crate::needs::Needs;

const DEADLINE: Duration = Duration::from_secs(5);
/// A name that no provider can have. `watchword_sms_worker` answers it with 404 and a detail that
/// identifies the SMS worker.
const NOBODY: &str = "-";

pub(super) async fn look(config: &Config, needs: Needs, findings: &mut Findings) {
    let url = config.sms.as_ref().and_then(|sms| sms.public_url.as_ref());
    let Some(url) = url.filter(|_| needs.sms) else {
        return;
    };
    let url = format!("{}/v1/receipts/{NOBODY}", url.trim_end_matches('/'));
    let found = timeout(DEADLINE, is_sms_worker(&url)).await;
    match found {
        Ok(Ok(true)) => findings.fine("receipts", "sms.public_url leads to an SMS worker"),
        Ok(Ok(false)) => findings.careful(
            "receipts",
            "sms.public_url leads to something else than an SMS worker, so no receipt arrives: set it to the \
             address under which gateways reach the sms-worker's http.listen",
        ),
        Ok(Err(_)) | Err(_) => findings.careful(
            "receipts",
            "sms.public_url cannot be reached from here: is the SMS worker running, and does the address lead to \
             its http.listen?",
        ),
    }
}

async fn is_sms_worker(url: &str) -> anyhow::Result<bool> {
    let response = client()?.get(url).send().await?;
    let status = response.status();
    let body = response.text().await?;
    Ok(status == StatusCode::NOT_FOUND && body.contains(watchword_sms_worker::NO_SUCH_PROVIDER))
}
