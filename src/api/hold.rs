//! `/pairs/{name}/hold`: keeps staging as it is while backups are still made and verified.

use serde_json::json;

use super::{ApiRequest, ApiResponse, Problem, body, reason_and_end, store, unavailable};
use crate::config::Pair;
use crate::port::{Method, World};
use crate::record;
use crate::sync::checkpoint::Hold;
use crate::time::render;

/// Sets or releases the hold of a pair. Setting it again replaces it; releasing what is not held is
/// no error.
pub(super) async fn change<W: World>(
    world: &W,
    pair: &Pair,
    request: &ApiRequest,
) -> Result<ApiResponse, Problem> {
    let key = record::hold_key(&pair.name);
    if request.method == Method::Delete {
        world.remove(&key).await.map_err(|error| unavailable(&error.into()))?;
        return Ok(ApiResponse::json(200, &json!({"pair": pair.name, "hold": null})));
    }
    let (reason, until) = reason_and_end(&body(request, &["reason", "until"])?, world.now())?;
    let hold = Hold { reason, until };
    store(world, &key, &record::encode(&hold)).await?;
    Ok(ApiResponse::json(
        200,
        &json!({
            "pair": pair.name, "hold": {"reason": hold.reason, "until": hold.until.map(render)},
        }),
    ))
}
