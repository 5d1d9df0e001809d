//! Counts what leaves the Worker.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::port::{
    Clock, Http, HttpFailure, HttpRequest, HttpResponse, Level, Log, Metadata, Page, Recall, Store,
    StoreFailure, World,
};
use crate::time::Timestamp;

/// The world, with a count of its requests.
pub(super) struct Meter<'a, W: World> {
    world: &'a W,
    http: Cell<u32>,
    store: Cell<u32>,
    keys: Cell<usize>,
}

impl<'a, W: World> Meter<'a, W> {
    /// Starts to count.
    pub(super) fn new(world: &'a W) -> Self {
        Self { world, http: Cell::new(0), store: Cell::new(0), keys: Cell::new(0) }
    }

    /// Returns the HTTP requests so far.
    pub(super) fn http_count(&self) -> u32 {
        self.http.get()
    }

    /// Returns the KV operations so far.
    pub(super) fn store_count(&self) -> u32 {
        self.store.get()
    }

    /// Returns the keys that were read so far. Each is billed.
    pub(super) fn key_count(&self) -> usize {
        self.keys.get()
    }

    /// Returns all subrequests so far.
    pub(super) fn total(&self) -> u32 {
        self.http.get() + self.store.get()
    }

    fn count_store(&self) {
        self.store.set(self.store.get() + 1);
    }
}

impl<W: World> Clock for Meter<'_, W> {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    async fn sleep(&self, until: Timestamp) {
        self.world.sleep(until).await;
    }
}

impl<W: World> Http for Meter<'_, W> {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        self.http.set(self.http.get() + 1);
        self.world.send(request).await
    }
}

impl<W: World> Store for Meter<'_, W> {
    async fn read(
        &self,
        keys: &[String],
    ) -> Result<BTreeMap<String, Option<String>>, StoreFailure> {
        self.count_store();
        self.keys.set(self.keys.get() + keys.len());
        self.world.read(keys).await
    }

    async fn write(
        &self,
        key: &str,
        value: &str,
        metadata: Option<Metadata>,
    ) -> Result<(), StoreFailure> {
        self.count_store();
        self.world.write(key, value, metadata).await
    }

    async fn remove(&self, key: &str) -> Result<(), StoreFailure> {
        self.count_store();
        self.world.remove(key).await
    }

    async fn list(&self, prefix: &str, cursor: Option<String>) -> Result<Page, StoreFailure> {
        self.count_store();
        self.world.list(prefix, cursor).await
    }
}

impl<W: World> Log for Meter<'_, W> {
    fn log(&self, level: Level, event: &str, facts: &[(&str, String)]) {
        self.world.log(level, event, facts);
    }
}

impl<W: World> Recall for Meter<'_, W> {
    fn note(&self, what: &str, at: Timestamp) {
        self.world.note(what, at);
    }

    fn noted_at(&self, what: &str) -> Option<Timestamp> {
        self.world.noted_at(what)
    }
}
