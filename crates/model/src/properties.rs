//! What must hold, and what must be seen, in both variants.

use saga::{Outcome, Status, payment};
use stateright::{Model, Property};

use crate::{Faults, Scope, books::Books, work::Work};

/// A state of either variant.
pub(crate) trait Situation {
    fn books(&self) -> &Books;
    /// What payment is doing.
    fn works(&self) -> impl Iterator<Item = &Work>;
}

/// What both variants have in common.
pub(crate) fn common<M>(scope: Scope, faults: Faults) -> Vec<Property<M>>
where
    M: Model,
    M::State: Situation,
{
    let mut properties = vec![
        Property::always("confirmed: all reserved, charged once", |_, state: &M::State| {
            state.books().is_confirmed_only_with_all()
        }),
        Property::always("failed: nothing reserved, nothing charged", |_, state: &M::State| {
            state.books().is_failed_only_with_nothing()
        }),
        Property::always("stock adds up", |_, state: &M::State| state.books().stock_adds_up()),
        Property::always("charged at most once", |_, state: &M::State| state.books().times_charged <= 1),
    ];
    if scope.is_sold() {
        properties.extend(situations());
        if faults.is_bounded() {
            properties.push(Property::eventually("ends", |_, state: &M::State| state.books().has_ended()));
        }
    } else {
        properties.push(Property::always("what nobody sells is not charged", |_, state: &M::State| {
            state.books().times_charged == 0 && !state.books().has_ended()
        }));
        // An operator may have it driven again, so that it is called once does not say that it is called in the end.
        properties.push(Property::always("an operator is called in the end", |model: &M, state: &M::State| {
            state.books().status == Status::NeedsOperator || !model.next_states(state).is_empty()
        }));
    }
    properties
}

/// What must come about, where everything goes wrong.
fn situations<M>() -> Vec<Property<M>>
where
    M: Model,
    M::State: Situation,
{
    vec![
        Property::sometimes("confirmed", |_, state: &M::State| state.books().status == Status::Confirmed),
        Property::sometimes("failed", |_, state: &M::State| state.books().status == Status::Failed),
        Property::sometimes("cancelled before it is reserved", |_, state: &M::State| state.books().has_tombstone()),
        Property::sometimes("an abort races with a charge", |_, state: &M::State| {
            state.works().any(Work::is_charging) && state.works().any(Work::is_fenced)
        }),
        Property::sometimes("charged by the provider, then aborted and voided", |_, state: &M::State| {
            let books = state.books();
            books.times_charged == 1 && books.voided && books.status == Status::Failed
        }),
        Property::sometimes("a lease is taken over", |_, state: &M::State| state.books().leases() > 1),
        Property::sometimes("an abort wins between two attempts at the provider", |_, state: &M::State| {
            let is_aborted = matches!(state.books().payment, payment::State::Aborted { .. });
            is_aborted && state.works().any(Work::is_asking_again)
        }),
        Property::sometimes("the provider is asked again after it has charged", |_, state: &M::State| {
            state.books().times_charged > 0 && state.works().any(Work::is_asking_again)
        }),
        Property::sometimes("an operator is called", |_, state: &M::State| {
            state.books().status == Status::NeedsOperator
        }),
    ]
}

/// Whether an abort found the booking charged, and it was confirmed.
pub(crate) fn is_charged_after_all(books: &Books) -> bool {
    matches!(books.abort, Some(Outcome::Charged { .. })) && books.status == Status::Confirmed
}
