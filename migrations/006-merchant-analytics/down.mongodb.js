// The view first, so that nobody looks at a page of nothing in between. Both were made
// from orders and can be made again, so nothing is lost.
db.merchant_analytics.drop();
db.merchant_stats.drop();
