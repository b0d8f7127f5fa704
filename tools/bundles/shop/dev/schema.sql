-- The shop's database, as small as the refund desk needs it. Run by `toolcrib dev` as the database's owner.
-- What a tool's login may see of it stands in roles.toml, column by column.

CREATE TABLE customers (
    customer_id text PRIMARY KEY,
    name        text NOT NULL,
    -- No tool may read these two.
    email       text NOT NULL,
    phone       text NOT NULL
);

CREATE TABLE orders (
    order_id    text PRIMARY KEY CHECK (order_id ~ '^[A-Z]-[0-9]{1,9}$'),
    customer_id text NOT NULL REFERENCES customers,
    state       text NOT NULL CHECK (state IN ('PAID', 'SHIPPED', 'REFUNDED')),
    total_minor bigint NOT NULL CHECK (total_minor > 0),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- The customer's own words.
    note        text NOT NULL DEFAULT '' CHECK (length(note) <= 4000),
    placed      timestamptz NOT NULL
);

CREATE TABLE payments (
    payment_id  text PRIMARY KEY,
    order_id    text NOT NULL REFERENCES orders,
    minor_units bigint NOT NULL CHECK (minor_units > 0),
    currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    method      text NOT NULL,
    -- What the payment provider accepts instead of the card. No tool may read it.
    provider_token text NOT NULL
);
CREATE INDEX payments_of_order ON payments (order_id);

CREATE SEQUENCE refund_draft_numbers;
CREATE TABLE refund_drafts (
    draft_id    text PRIMARY KEY DEFAULT 'D-' || nextval('refund_draft_numbers'),
    order_id    text NOT NULL REFERENCES orders,
    minor_units bigint NOT NULL CHECK (minor_units > 0),
    currency    text NOT NULL,
    comment     text NOT NULL,
    -- Belt and braces: the broker runs a key once, and the table holds it once.
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    created     timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE refund_numbers;
CREATE TABLE refunds (
    refund_id   text PRIMARY KEY DEFAULT 'R-' || nextval('refund_numbers'),
    order_id    text NOT NULL REFERENCES orders,
    minor_units bigint NOT NULL CHECK (minor_units > 0),
    currency    text NOT NULL,
    -- Empty: back to the payment it came from.
    payout_account  text NOT NULL DEFAULT '',
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    issued      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refunds_of_order ON refunds (order_id);
