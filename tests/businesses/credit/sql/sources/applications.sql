-- Bronze rows → the same rows with their outcome. One row per application: of rows that contradict each other none is used.
-- Empty numbers stay empty: the model learns what that says.
WITH read AS (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY
        _day, application_id, applied_on, amount, months, income, age, employed_years, open_loans, late_payments,
        purpose, housing, defaulted
      ORDER BY _file, _row
    ) AS copy,
    CASE WHEN amount RLIKE '^[0-9]{1,7}([.][0-9]{1,2})?$' THEN try_cast(amount AS DOUBLE) END AS credit,
    CASE WHEN months RLIKE '^[0-9]{1,3}([.]0)?$' THEN try_cast(months AS DOUBLE) END AS term,
    coalesce(income, '0') RLIKE '^[0-9]{1,7}([.][0-9]{1,2})?$'
    AND coalesce(age, '0') RLIKE '^[0-9]{1,3}([.]0)?$'
    AND coalesce(employed_years, '0') RLIKE '^[0-9]{1,2}([.][0-9]+)?$'
    AND coalesce(open_loans, '0') RLIKE '^[0-9]{1,3}([.]0)?$'
    AND coalesce(late_payments, '0') RLIKE '^[0-9]{1,3}([.]0)?$' AS are_numbers
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN application_id IS NULL THEN 'application_id'
      WHEN sum(CASE WHEN copy = 1 THEN 1 ELSE 0 END) OVER (PARTITION BY _day, application_id) > 1 THEN 'application_id'
      WHEN coalesce(applied_on, '') <> CAST(_day AS STRING) THEN 'applied_on'
      WHEN coalesce(credit, 0) = 0 OR credit > :max_amount THEN 'amount'
      WHEN coalesce(term, 0) = 0 THEN 'months'
      WHEN NOT are_numbers THEN 'income'
      WHEN NOT coalesce(defaulted, '0') RLIKE '^[01]([.]0)?$' THEN 'defaulted'
    END AS refused_column
  FROM read
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  CASE refused_column
    WHEN 'application_id' THEN 'application_id is missing or has several rows'
    WHEN 'applied_on' THEN 'applied_on is not the day it was landed for'
    WHEN 'income' THEN 'income, age, employed_years, open_loans or late_payments is not a number'
    WHEN 'defaulted' THEN 'defaulted is neither 0 nor 1'
    WHEN 'amount' THEN 'amount is not an amount of credit'
    WHEN 'months' THEN 'months is not a number of months'
  END AS reason,
  CASE WHEN refused_column IS NOT NULL THEN 'ask lending to correct the row and to send the day again' END AS remedy,
  _day AS day,
  application_id,
  credit AS amount,
  term AS months,
  CASE WHEN refused_column IS NULL THEN try_cast(income AS DOUBLE) END AS income,
  CASE WHEN refused_column IS NULL THEN try_cast(age AS DOUBLE) END AS age,
  CASE WHEN refused_column IS NULL THEN try_cast(employed_years AS DOUBLE) END AS employed_years,
  CASE WHEN refused_column IS NULL THEN try_cast(open_loans AS DOUBLE) END AS open_loans,
  CASE WHEN refused_column IS NULL THEN try_cast(late_payments AS DOUBLE) END AS late_payments,
  purpose,
  housing,
  CASE WHEN refused_column IS NULL THEN try_cast(try_cast(defaulted AS DOUBLE) AS BIGINT) END AS defaulted,
  _file,
  _row
FROM judged
ORDER BY _id
