//! Grants as they are used: what all requests of a handler share because of what it was granted.
//!
//! Made when a handler is configured, and again when its grants change; a swap of its module leaves it alone, so that look-ups and
//! outgoing requests stay bounded over revisions, and connections open. Used by the workers that run its guests.

use std::{ops::Deref, sync::Arc};

use astra_server::Executor;

use super::{
    denials::Denials,
    descriptors::{Opened, Place, Room},
    grants::Grants,
    outbound::Outbound,
    resolver::Resolver,
};

/// What a handler was granted, ready to be used.
#[derive(Debug)]
pub struct Granted {
    grants: Grants,
    denials: Arc<Denials>,
    resolver: Resolver,
    descriptors: Room,
    outbound: Outbound,
}

impl Granted {
    /// Makes the grants of `handler` ready; its guests' requests to others run on `executor`. What [`Grants::check`] would not pass is logged,
    /// and denied.
    #[must_use]
    pub fn new(handler: &Arc<str>, grants: Grants, executor: &Executor) -> Self {
        let (denials, resolver) = (Arc::new(Denials::new(handler)), Resolver::new());
        let descriptors = Room::of_one_handler();
        let outbound = Outbound::new(&grants.outbound, &resolver, &denials, &descriptors, executor);
        Self { grants, denials, resolver, descriptors, outbound }
    }

    /// Whose grants these are.
    pub(crate) fn handler(&self) -> &Arc<str> {
        self.denials.handler()
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// A place for one descriptor more of a guest's that has these; if there is none, that is logged.
    pub(crate) fn place(&self, opened: &mut Opened) -> Option<Place> {
        let place = opened.place(&self.descriptors);
        if place.is_none() {
            let remark = "it has as many open as a guest may, or its handler, or all guests together";
            self.denials.tell_with("one more file or socket", remark);
        }
        place
    }

    /// Logs that a guest was denied `what`. `rule` is what would allow it, none if there can be no such rule for the host that it names; see
    /// [`Denials::tell`].
    pub(crate) fn denied(&self, what: &str, rule: Option<&str>) {
        match rule {
            Some(rule) => self.denials.tell(what, rule),
            None => self.denials.tell_with(what, "no rule but `*` can name such a host"),
        }
    }

    /// Logs that a guest was denied what nobody is granted.
    pub(crate) fn refused(&self, what: &str) {
        self.denials.tell_with(what, "this cannot be granted");
    }
}

impl Deref for Granted {
    type Target = Grants;

    fn deref(&self) -> &Grants {
        &self.grants
    }
}
