//! Fills a batch within its limits and its budget.
