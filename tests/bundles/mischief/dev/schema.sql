CREATE TABLE IF NOT EXISTS public.effects (
    number bigserial PRIMARY KEY, idempotency_key text NOT NULL, made timestamptz NOT NULL DEFAULT now()
);
