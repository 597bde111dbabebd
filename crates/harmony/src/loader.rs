//! Puts stock on sale: for every product of the catalogue a line on every date.

use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{ToSpan, civil::Date};
use saga::{Leg, StockLine, booking::Trip};
use services::{Catalogue, CatalogueError};
use store::{Journal, StockTable, StoreError};

use crate::{Stack, StackError};

/// How many days there is stock for if nothing else is said.
pub const DAYS: u16 = 90;
/// How many lines one request writes, which is DynamoDB's limit, and how many requests are under way at once.
const BATCH: (usize, usize) = (25, 8);

/// Why stock could not be loaded or looked at.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The program was built with a bad price list.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The stack is not this project's.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// DynamoDB did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The stock of a stack.
#[derive(Clone, Debug)]
pub struct Stock {
    tables: [(Leg, StockTable); 3],
    catalogue: Catalogue,
}

impl Stock {
    /// The stock of this stack, reached with this configuration.
    pub fn of(stack: &Stack, sdk: &SdkConfig) -> Result<Self, LoadError> {
        let client = store::client(sdk);
        let journal = Journal::new(client.clone(), stack.journal_table()?, 1); // not written to here
        let table = |leg| {
            let name = stack.stock_table(leg)?;
            Ok::<_, StackError>((leg, StockTable::new(client.clone(), name, journal.clone())))
        };
        let tables = [table(Leg::Flight)?, table(Leg::Hotel)?, table(Leg::Car)?];
        Ok(Self { tables, catalogue: Catalogue::bundled()? })
    }

    /// How many lines stock for these dates has.
    pub fn count(&self, dates: &[Date]) -> usize {
        Leg::ALL.into_iter().map(|leg| self.catalogue.offers(leg).count() * dates.len()).sum()
    }

    /// Puts the whole catalogue on sale for these dates, **replacing** what there was: what had been sold of a line is
    /// for sale again. `loaded` is told how many lines are done, batch by batch.
    pub async fn load(&self, dates: &[Date], loaded: impl Fn(usize)) -> Result<(), LoadError> {
        let batches = self.tables.iter().flat_map(|(leg, table)| {
            let lines = lines(&self.catalogue, *leg, dates);
            lines.chunks(BATCH.0).map(|lines| (table, lines.to_vec())).collect::<Vec<_>>()
        });
        let seeds = stream::iter(batches).map(|(table, lines)| async move {
            table.seed(&lines).await?;
            Ok::<_, LoadError>(lines.len())
        });
        seeds
            .buffer_unordered(BATCH.1)
            .try_for_each(|lines| {
                loaded(lines);
                std::future::ready(Ok(()))
            })
            .await
    }

    /// Whether there is enough for so many trips like this one; none if a date of it is not on sale at all. Products
    /// that nobody can buy, because there are none or they are unknown, do not count.
    pub async fn suffices(&self, trip: &Trip, times: u32) -> Result<Option<bool>, LoadError> {
        let mut suffices = true;
        for (leg, table) in &self.tables {
            let product = trip.leg(*leg).product();
            if !self.catalogue.offers(*leg).any(|(name, offer)| name == product && offer.units > 0) {
                continue;
            }
            for line in trip.leg(*leg).lines() {
                let Some((available, _)) = table.available(&line).await? else { return Ok(None) };
                suffices &= available >= i64::from(line.units) * i64::from(times);
            }
        }
        Ok(Some(suffices))
    }
}

/// So many dates from this one on.
pub fn dates(first: Date, days: u16) -> Vec<Date> {
    (0..i64::from(days)).map(|day| first.saturating_add(day.days())).collect()
}

/// The stock lines of a leg for these dates, in order.
pub fn lines(catalogue: &Catalogue, leg: Leg, dates: &[Date]) -> Vec<StockLine> {
    let mut offers: Vec<_> = catalogue.offers(leg).collect();
    offers.sort_unstable_by_key(|(product, _)| *product);
    let line = |(product, offer): &(&str, &services::Offer), date: &Date| StockLine {
        product: (*product).to_owned(),
        date: *date,
        units: offer.units,
    };
    offers.iter().flat_map(|offer| dates.iter().map(move |date| line(offer, date))).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn every_product_has_a_line_on_every_date() {
        let catalogue = Catalogue::bundled().unwrap();
        let dates = dates(date(2027, 2, 27), 3);
        assert_eq!(dates, [date(2027, 2, 27), date(2027, 2, 28), date(2027, 3, 1)]);
        for leg in Leg::ALL {
            let lines = lines(&catalogue, leg, &dates);
            assert_eq!(lines.len(), catalogue.offers(leg).count() * 3);
            let keys: std::collections::HashSet<_> = lines.iter().map(|line| (&line.product, line.date)).collect();
            assert_eq!(keys.len(), lines.len(), "{leg:?}");
        }
    }

    #[test]
    fn a_line_has_what_the_catalogue_says_and_may_be_empty() {
        let lines = lines(&Catalogue::bundled().unwrap(), Leg::Hotel, &[date(2027, 3, 1)]);
        let units = |hotel: &str| lines.iter().find(|line| line.product == hotel).map(|line| line.units);
        assert_eq!(units("nyc-plaza"), Some(40));
        assert_eq!(units("nyc-annex"), Some(0), "the demo needs a hotel on sale that has no room");
    }
}
