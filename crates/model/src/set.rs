//! Sets of small numbers, as the bits of one.

/// The place of something in a list of all that there can be.
pub(crate) type Id = u8;

/// A set of places in a list. What does not fit is refused: see [`Set::CAPACITY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Set(u64);

impl Set {
    /// How many different members there can be.
    pub(crate) const CAPACITY: usize = u64::BITS as usize;
    pub(crate) const EMPTY: Self = Self(0);

    /// The place of the last of so many, if a set can hold them.
    pub(crate) fn check(count: usize) {
        assert!(count <= Self::CAPACITY, "{count} members do not fit into a set of {}", Self::CAPACITY);
    }

    /// Only this one.
    pub(crate) fn of(id: Id) -> Self {
        Self::check(usize::from(id) + 1);
        Self(1 << id)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Its members, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Id> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let id = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            Id::try_from(id).ok().filter(|id| usize::from(*id) < Self::CAPACITY)
        })
    }

    /// Which of `width` members from this one on are in it.
    pub(crate) const fn slice(self, from: usize, width: usize) -> u64 {
        (self.0 >> from) & ((1 << width) - 1)
    }

    /// The slices of this width that it begins with, in another order; what comes after them stays.
    pub(crate) fn arranged(self, order: &[usize], width: usize) -> Self {
        let slices = order.iter().enumerate();
        let moved = slices.map(|(to, from)| self.slice(from * width, width) << (to * width)).sum::<u64>();
        Self((self.0 & (u64::MAX << (order.len() * width))) | moved)
    }
}

impl FromIterator<Id> for Set {
    fn from_iter<I: IntoIterator<Item = Id>>(ids: I) -> Self {
        ids.into_iter().fold(Self::EMPTY, |set, id| set.and(Self::of(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_members_that_were_put_in() {
        let set = Set::from_iter([0, 7, 32, 63]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 32, 63]);
        assert!(set.meets(Set::of(32)) && !set.meets(Set::of(31)) && !set.without(Set::of(32)).meets(Set::of(32)));
        assert!(Set::EMPTY.is_empty() && Set::EMPTY.iter().next().is_none());
    }

    #[test]
    fn slices_change_places_and_the_rest_stays() {
        let set = Set::from_iter([0, 5, 8, 9]);
        assert_eq!(set.arranged(&[2, 0, 1], 3), Set::from_iter([2, 3, 8, 9]));
        assert_eq!(set.arranged(&[0, 1, 2], 3), set);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn what_does_not_fit_is_not_lost_in_silence() {
        let _ = Set::of(64);
    }
}
