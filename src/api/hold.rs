//! `/pairs/{name}/hold`: keeps staging as it is while backups are still made and verified.

use serde_json::{Value, json};

use super::{ApiRequest, ApiResponse, Problem, body, store, unavailable};
use crate::config::Pair;
use crate::port::{Method, World};
use crate::record;
use crate::sync::checkpoint::Hold;
use crate::time::{Timestamp, render};

/// Characters of a reason.
const REASON_LENGTH: usize = 200;

/// Sets or releases the hold of a pair. Setting it again replaces it; releasing what is not held is no error.
pub(super) async fn change<W: World>(world: &W, pair: &Pair, request: &ApiRequest) -> Result<ApiResponse, Problem> {
    let key = record::hold_key(&pair.name);
    if request.method == Method::Delete {
        world.remove(&key).await.map_err(|error| unavailable(&error.into()))?;
        return Ok(ApiResponse::json(200, &json!({"pair": pair.name, "hold": null})));
    }
    let fields = body(request, &["reason", "until"])?;
    let bad = |detail: String| Problem::new(400, "The body cannot be used").with_detail(detail);
    let reason = match fields.get("reason") {
        Some(Value::String(reason)) if !reason.trim().is_empty() && reason.chars().count() <= REASON_LENGTH => {
            reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
        }
        _ => return Err(bad(format!("reason: expected a text of 1 to {REASON_LENGTH} characters"))),
    };
    let until = match fields.get("until") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let instant: Option<Timestamp> = value.as_str().and_then(|text| text.parse().ok());
            let future = instant.filter(|until| *until > world.now());
            Some(future.ok_or_else(|| bad("until: expected an instant in the future, such as \"2026-11-22T12:00:00Z\"".to_owned()))?)
        }
    };
    let hold = Hold { reason, until };
    store(world, &key, &record::encode(&hold)).await?;
    Ok(ApiResponse::json(
        200,
        &json!({
            "pair": pair.name, "hold": {"reason": hold.reason, "until": hold.until.map(render)},
        }),
    ))
}
