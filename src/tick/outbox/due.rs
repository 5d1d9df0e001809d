//! What is due: which notices go to which channel in this tick, and in what order.
//!
//! In: notices with their deliveries, `now`. Out: [`Parcel`]s, each of one request.
//!
//! Invariants: of one channel a notice never goes before an earlier one that it waits for. One
//! channel that is gone for days does not take the places of the others.

use super::Context;
use crate::id::ChannelName;
use crate::ordered;
use crate::port::World;
use crate::sync::notice::{self, Notice, Outgoing};
use crate::time::Timestamp;

/// Requests for notices of earlier ticks that a tick makes before it sees to a run. One for each
/// channel that may be configured.
const REQUESTS_BEFORE_A_RUN: usize = 10;

/// Notices that one digest gathers: each of them is written down afterwards, so that one digest
/// fits [`WRITES_BEFORE_A_RUN`].
const MOST_GATHERED: usize = 10;

/// Writes of notices of earlier ticks before a tick sees to a run: with ten requests half of the 50
/// subrequests of an invocation.
const WRITES_BEFORE_A_RUN: usize = 15;

/// What goes to a channel in one request: deliveries, by the place of the notice and of the
/// delivery.
pub(super) struct Parcel {
    pub(super) channel: ChannelName,
    pub(super) places: Vec<(usize, usize)>,
    pub(super) letter: Notice,
}

impl Parcel {
    fn holds(&self, place: usize) -> bool {
        self.places.iter().any(|(other, _)| *other == place)
    }
}

impl<W: World> Context<'_, W> {
    /// Puts what is due into parcels, for each channel in the order in which it happened.
    pub(super) fn parcels(&self, waiting: &[Outgoing], now: Timestamp) -> Vec<Parcel> {
        let mut parcels: Vec<Parcel> = Vec::new();
        for (place, outgoing) in waiting.iter().enumerate() {
            for (of, delivery) in
                outgoing.deliveries.iter().enumerate().filter(|(_, delivery)| delivery.is_due(now))
            {
                // One that goes before it in this tick is no reason to wait: nothing more is tried
                // after one that is not taken.
                let is_sent = |earlier: usize| {
                    parcels
                        .iter()
                        .any(|parcel| parcel.channel == delivery.channel && parcel.holds(earlier))
                };
                let is_behind = |(earlier, other): (usize, &Outgoing)| {
                    outgoing.waits_for(other, &delivery.channel) && !is_sent(earlier)
                };
                let is_blocked = waiting.iter().enumerate().any(is_behind);
                let known = delivery.digest_at.and_then(|digest_at| {
                    let is_same = |parcel: &&mut Parcel| {
                        let (other, of) = parcel.places[0];
                        let is_of_digest =
                            waiting[other].deliveries[of].digest_at == Some(digest_at);
                        parcel.channel == delivery.channel
                            && is_of_digest
                            && parcel.places.len() < MOST_GATHERED
                    };
                    parcels.iter_mut().find(is_same)
                });
                if let Some(parcel) = known {
                    parcel.places.push((place, of));
                } else if !is_blocked {
                    let (channel, letter) = (delivery.channel.clone(), outgoing.notice.clone());
                    parcels.push(Parcel { channel, places: vec![(place, of)], letter });
                }
            }
        }
        self.gather(waiting, &mut parcels);
        parcels
    }

    /// Makes one letter of what a digest gathers.
    fn gather(&self, waiting: &[Outgoing], parcels: &mut [Parcel]) {
        for parcel in parcels {
            let (first, of) = parcel.places[0];
            let Some(digest_at) = waiting[first].deliveries[of].digest_at else { continue };
            let gathered: Vec<&Notice> =
                parcel.places.iter().map(|(place, _)| &waiting[*place].notice).collect();
            if let Some(digest) =
                notice::of_digest(&gathered, &parcel.channel, &self.config.label, digest_at)
            {
                parcel.letter = digest;
            }
        }
    }

    /// Returns the parcels that a tick sends before it drives a run, in the order in which they go.
    pub(super) fn affordable(&self, parcels: Vec<Parcel>) -> Vec<Parcel> {
        // The first of every channel before the second of any: one that is gone for days must not
        // take all the places.
        let ranks: Vec<usize> =
            (0..parcels.len()).map(|place| same_channel(&parcels, place)).collect();
        let mut ranked: Vec<(usize, Parcel)> = ranks.into_iter().zip(parcels).collect();
        // Of those a digest, which takes many writes, after what goes alone.
        ordered::sort_by_key(&mut ranked, |(rank, parcel)| (*rank, parcel.places.len()));
        ranked.truncate(REQUESTS_BEFORE_A_RUN);
        let (mut requests, mut written): (usize, Vec<usize>) = (0, Vec::new());
        let is_within = |(_, parcel): &(usize, Parcel)| {
            requests += 1;
            for (place, _) in &parcel.places {
                if !written.contains(place) {
                    written.push(*place);
                }
            }
            written.len() <= WRITES_BEFORE_A_RUN
                && self.has_room(u32::try_from(requests + written.len()).unwrap_or(u32::MAX))
        };
        ranked.into_iter().take_while(is_within).map(|(_, parcel)| parcel).collect()
    }
}

/// Returns how many parcels before this one go to its channel.
fn same_channel(parcels: &[Parcel], place: usize) -> usize {
    parcels[..place].iter().filter(|parcel| parcel.channel == parcels[place].channel).count()
}
