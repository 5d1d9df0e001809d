//! `/incidents`: what is wrong, and who knows of it.

use serde_json::{Value, json};

use super::{ApiRequest, ApiResponse, NAME_LENGTH, Problem, body, store, text_of, unavailable};
use crate::config::Config;
use crate::port::World;
use crate::record::{self, RecordError};
use crate::sync::checkpoint::FORMAT;
use crate::sync::incident::{Acknowledgement, Incident};
use crate::time::render;

/// Pairs whose incidents are read: each has two keys, and one request reads a hundred.
const PAIRS: usize = record::KEYS_PER_READ / 2;

/// Reads the last incident of every pair.
async fn incidents<W: World>(world: &W, config: &Config) -> Result<Vec<Incident>, Problem> {
    let pairs = || config.pairs.iter().take(PAIRS);
    let keys: Vec<String> = pairs()
        .flat_map(|pair| [record::incident_key(&pair.name), record::acknowledged_key(&pair.name)])
        .collect();
    let found =
        world.read(&keys).await.map_err(|failure| unavailable(&RecordError::from(failure)))?;
    let text = |key: &String| found.get(key).and_then(Option::as_ref);
    let mut incidents = Vec::new();
    for pair in pairs() {
        let (key, known_key) =
            (record::incident_key(&pair.name), record::acknowledged_key(&pair.name));
        let Some(incident) = text(&key) else { continue };
        // One that makes no sense is opened again from its notices.
        let incident: Option<Incident> =
            record::decode_or_lose(&key, incident).map_err(|error| unavailable(&error))?;
        let Some(incident) = incident else { continue };
        let known = text(&known_key)
            .map_or(Ok(None), |text| record::decode_or_lose::<Acknowledgement>(&known_key, text));
        let known = known.map_err(|error| unavailable(&error))?;
        incidents.push(Incident {
            acknowledged: known.filter(|known| known.incident == incident.id),
            ..incident
        });
    }
    Ok(incidents)
}

/// Lists the last incident of every pair, open ones first.
pub(super) async fn list<W: World>(world: &W, config: &Config) -> Result<ApiResponse, Problem> {
    let (open, over): (Vec<_>, Vec<_>) =
        incidents(world, config).await?.into_iter().partition(Incident::is_open);
    let shown: Vec<Value> = open.iter().chain(&over).map(shown).collect();
    Ok(ApiResponse::json(200, &json!({"incidents": shown})))
}

/// Notes that somebody knows of an incident, which is then escalated only when a business day
/// begins. Acknowledging again replaces the name.
///
/// `{"by": "Dana, on call"}`, optional.
pub(super) async fn acknowledge<W: World>(
    world: &W,
    config: &Config,
    request: &ApiRequest,
    id: &str,
) -> Result<ApiResponse, Problem> {
    let fields = body(request, &["by"])?;
    let by = text_of(&fields, "by", NAME_LENGTH)?.unwrap_or_else(|| "somebody".to_owned());
    let found = incidents(world, config).await?.into_iter().find(|incident| incident.id == id);
    let Some(mut incident) = found else {
        let id: String = id.chars().take(60).collect();
        return Err(Problem::new(404, "There is no such incident")
            .with_detail(format!("incident {id:?} is not known; GET /incidents lists them")));
    };
    if let Some(resolution) = &incident.resolution {
        let detail = format!(
            "incident {} was resolved by run {} at {}",
            incident.id,
            resolution.run,
            render(resolution.at)
        );
        return Err(Problem::new(409, "The incident is over").with_detail(detail));
    }
    let known =
        Acknowledgement { format: FORMAT, incident: incident.id.clone(), at: world.now(), by };
    store(world, &record::acknowledged_key(&incident.pair), &record::encode(&known)).await?;
    incident.acknowledged = Some(known);
    Ok(ApiResponse::json(200, &shown(&incident)))
}

fn shown(incident: &Incident) -> Value {
    let state = match (&incident.resolution, &incident.acknowledged) {
        (Some(_), _) => "resolved",
        (None, Some(_)) => "acknowledged",
        (None, None) => "open",
    };
    json!({
        "id": incident.id, "pair": incident.pair, "run": incident.run, "state": state,
        "opened_at": render(incident.opened_at),
        "subject": incident.subject, "notices": incident.joined,
        "escalations": incident.escalations,
        "acknowledged": incident.acknowledged.as_ref().map(|known| json!({"at": render(known.at),
                    "by": known.by})),
        "resolved": incident.resolution.as_ref().map(|over| json!({"at": render(over.at),
                    "run": over.run})),
        "runbook": "runbooks/incident-response.md",
    })
}
