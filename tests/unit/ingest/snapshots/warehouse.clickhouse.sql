SELECT
  "t2"."fault" AS "fault",
  COUNT(*) AS "rows"
FROM (
  SELECT
    CASE
      WHEN isNull("t1"."user_id")
      THEN 1
      WHEN isNotNull("t1"."user_id")
      AND (
        (
          octet_length("t1"."user_id") < 1
        )
        OR (
          octet_length("t1"."user_id") > 256
        )
      )
      THEN 2
      WHEN isNull("t1"."op")
      THEN 3
      WHEN isNotNull("t1"."op")
      AND NOT (
        (
          "t1"."op" = '+'
        ) OR (
          "t1"."op" = '-'
        )
      )
      THEN 4
      WHEN isNull("t1"."day")
      THEN 5
      WHEN "t1"."day" < toDate('1900-01-01')
      THEN 6
      WHEN NOT (
        "t1"."day" < toDate('2026-04-04')
      )
      THEN 7
      WHEN "t1"."day" < toDate('2024-01-23')
      THEN 8
      WHEN isNotNull("t1"."event_id")
      AND (
        (
          octet_length("t1"."event_id") < 1
        )
        OR (
          octet_length("t1"."event_id") > 256
        )
      )
      THEN 9
      WHEN isNotNull("t1"."platform")
      AND (
        (
          octet_length("t1"."platform") < 1
        )
        OR (
          octet_length("t1"."platform") > 64
        )
      )
      THEN 10
      WHEN isNull("t1"."seq")
      THEN 11
      ELSE 0
    END AS "fault"
  FROM (
    SELECT
      "t0"."user_id" AS "user_id",
      "t0"."op" AS "op",
      "t0"."day" AS "day",
      "t0"."event_id" AS "event_id",
      "t0"."seq" AS "seq",
      "t0"."platform" AS "platform"
    FROM "events" AS "t0"
  ) AS "t1"
) AS "t2"
GROUP BY
  "t2"."fault";

WITH "t3" AS (
  SELECT
    "t2"."user_id" AS "user_id",
    "t2"."op" AS "op",
    "t2"."day" AS "day",
    "t2"."event_id" AS "event_id",
    "t2"."seq" AS "seq",
    "t2"."platform" AS "platform",
    ROW_NUMBER() OVER (
      PARTITION BY "t2"."user_id", "t2"."event_id"
      ORDER BY "t2"."seq" ASC, CASE WHEN "t2"."op" = '+' THEN 0 ELSE 1 END ASC, CASE WHEN isNull("t2"."day") THEN 1 ELSE 0 END ASC, "t2"."day" ASC, CASE WHEN isNull("t2"."platform") THEN 1 ELSE 0 END ASC, "t2"."platform" ASC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "rank_of_id"
  FROM (
    SELECT
      *
    FROM (
      SELECT
        "t0"."user_id" AS "user_id",
        "t0"."op" AS "op",
        "t0"."day" AS "day",
        "t0"."event_id" AS "event_id",
        "t0"."seq" AS "seq",
        "t0"."platform" AS "platform"
      FROM "events" AS "t0"
    ) AS "t1"
    WHERE
      CASE
        WHEN isNull("t1"."user_id")
        THEN 1
        WHEN isNotNull("t1"."user_id")
        AND (
          (
            octet_length("t1"."user_id") < 1
          )
          OR (
            octet_length("t1"."user_id") > 256
          )
        )
        THEN 2
        WHEN isNull("t1"."op")
        THEN 3
        WHEN isNotNull("t1"."op")
        AND NOT (
          (
            "t1"."op" = '+'
          ) OR (
            "t1"."op" = '-'
          )
        )
        THEN 4
        WHEN isNull("t1"."day")
        THEN 5
        WHEN "t1"."day" < toDate('1900-01-01')
        THEN 6
        WHEN NOT (
          "t1"."day" < toDate('2026-04-04')
        )
        THEN 7
        WHEN "t1"."day" < toDate('2024-01-23')
        THEN 8
        WHEN isNotNull("t1"."event_id")
        AND (
          (
            octet_length("t1"."event_id") < 1
          )
          OR (
            octet_length("t1"."event_id") > 256
          )
        )
        THEN 9
        WHEN isNotNull("t1"."platform")
        AND (
          (
            octet_length("t1"."platform") < 1
          )
          OR (
            octet_length("t1"."platform") > 64
          )
        )
        THEN 10
        WHEN isNull("t1"."seq")
        THEN 11
        ELSE 0
      END = 0
  ) AS "t2"
)
SELECT
  "t16"."part" AS "part",
  SUM(
    CASE
      WHEN (
        "t16"."day" > -1
      ) AND (
        "t16"."day" <= 29
      ) AND (
        "t16"."until" > 29
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260201",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 0
      ) AND (
        "t16"."day" <= 30
      ) AND (
        "t16"."until" > 30
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260202",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 1
      ) AND (
        "t16"."day" <= 31
      ) AND (
        "t16"."until" > 31
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260203",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 2
      ) AND (
        "t16"."day" <= 32
      ) AND (
        "t16"."until" > 32
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260204",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 3
      ) AND (
        "t16"."day" <= 33
      ) AND (
        "t16"."until" > 33
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260205",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 4
      ) AND (
        "t16"."day" <= 34
      ) AND (
        "t16"."until" > 34
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260206",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 5
      ) AND (
        "t16"."day" <= 35
      ) AND (
        "t16"."until" > 35
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260207",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 6
      ) AND (
        "t16"."day" <= 36
      ) AND (
        "t16"."until" > 36
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260208",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 7
      ) AND (
        "t16"."day" <= 37
      ) AND (
        "t16"."until" > 37
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260209",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 8
      ) AND (
        "t16"."day" <= 38
      ) AND (
        "t16"."until" > 38
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260210",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 9
      ) AND (
        "t16"."day" <= 39
      ) AND (
        "t16"."until" > 39
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260211",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 10
      ) AND (
        "t16"."day" <= 40
      ) AND (
        "t16"."until" > 40
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260212",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 11
      ) AND (
        "t16"."day" <= 41
      ) AND (
        "t16"."until" > 41
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260213",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 12
      ) AND (
        "t16"."day" <= 42
      ) AND (
        "t16"."until" > 42
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260214",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 13
      ) AND (
        "t16"."day" <= 43
      ) AND (
        "t16"."until" > 43
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260215",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 14
      ) AND (
        "t16"."day" <= 44
      ) AND (
        "t16"."until" > 44
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260216",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 15
      ) AND (
        "t16"."day" <= 45
      ) AND (
        "t16"."until" > 45
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260217",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 16
      ) AND (
        "t16"."day" <= 46
      ) AND (
        "t16"."until" > 46
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260218",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 17
      ) AND (
        "t16"."day" <= 47
      ) AND (
        "t16"."until" > 47
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260219",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 18
      ) AND (
        "t16"."day" <= 48
      ) AND (
        "t16"."until" > 48
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260220",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 19
      ) AND (
        "t16"."day" <= 49
      ) AND (
        "t16"."until" > 49
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260221",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 20
      ) AND (
        "t16"."day" <= 50
      ) AND (
        "t16"."until" > 50
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260222",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 21
      ) AND (
        "t16"."day" <= 51
      ) AND (
        "t16"."until" > 51
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260223",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 22
      ) AND (
        "t16"."day" <= 52
      ) AND (
        "t16"."until" > 52
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260224",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 23
      ) AND (
        "t16"."day" <= 53
      ) AND (
        "t16"."until" > 53
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260225",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 24
      ) AND (
        "t16"."day" <= 54
      ) AND (
        "t16"."until" > 54
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260226",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 25
      ) AND (
        "t16"."day" <= 55
      ) AND (
        "t16"."until" > 55
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260227",
  SUM(
    CASE
      WHEN (
        "t16"."day" > 26
      ) AND (
        "t16"."day" <= 56
      ) AND (
        "t16"."until" > 56
      )
      THEN "t16"."people"
      ELSE 0
    END
  ) AS "w30_20260228"
FROM (
  SELECT
    "t15"."part" AS "part",
    "t15"."day" AS "day",
    "t15"."until" AS "until",
    COUNT(*) AS "people"
  FROM (
    SELECT
      "t14"."user" AS "user",
      "t14"."day" AS "day",
      "t14"."until" AS "until",
      "t14"."who" AS "who",
      COALESCE("t14"."part", 0) AS "part"
    FROM (
      SELECT
        "t13"."user" AS "user",
        "t13"."day" AS "day",
        "t13"."until" AS "until",
        "t11"."who" AS "who",
        "t11"."part" AS "part"
      FROM (
        SELECT
          "t9"."user" AS "user",
          "t9"."day" AS "day",
          leadInFrame("t9"."day", 1, 57) OVER (
            PARTITION BY "t9"."user"
            ORDER BY "t9"."day" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) AS "until"
        FROM (
          SELECT
            "t7"."user" AS "user",
            "t7"."day" AS "day"
          FROM (
            SELECT
              "t5"."user" AS "user",
              "t5"."day" AS "day",
              countIf("t5"."adds") AS "puts",
              countIf(NOT (
                "t5"."adds"
              )) AS "takes",
              maxIf("t5"."place", "t5"."adds") AS "put_at",
              maxIf("t5"."place", NOT (
                "t5"."adds"
              )) AS "taken_at"
            FROM (
              SELECT
                "t4"."user_id" AS "user",
                CAST(DATE_DIFF(DAY, toDate('2026-01-03'), "t4"."day") AS Nullable(Int32)) AS "day",
                "t4"."op" = '+' AS "adds",
                "t4"."seq" AS "place"
              FROM "t3" AS "t4"
              WHERE
                (
                  isNull("t4"."event_id") OR (
                    "t4"."rank_of_id" = 0
                  )
                )
                AND NOT (
                  "t4"."day" < toDate('2026-01-03')
                )
                AND "t4"."day" < toDate('2026-03-01')
            ) AS "t5"
            GROUP BY
              "t5"."user",
              "t5"."day"
          ) AS "t7"
          WHERE
            "t7"."puts" > 0
            AND (
              (
                "t7"."takes" = 0
              ) OR (
                "t7"."put_at" > "t7"."taken_at"
              )
            )
        ) AS "t9"
      ) AS "t13"
      LEFT OUTER JOIN (
        SELECT
          "t8"."who" AS "who",
          CASE WHEN "t8"."label" = 'ios' THEN 1 WHEN "t8"."label" = 'o''web' THEN 2 ELSE 0 END AS "part"
        FROM (
          SELECT
            "t6"."who" AS "who",
            "t6"."month" AS "month",
            "t6"."place" AS "place",
            "t6"."label" AS "label",
            ROW_NUMBER() OVER (
              PARTITION BY "t6"."who"
              ORDER BY "t6"."month" DESC, "t6"."place" ASC, "t6"."label" ASC
              ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) - 1 AS "rank"
          FROM (
            SELECT
              "t4"."user_id" AS "who",
              CASE
                WHEN NOT (
                  "t4"."day" < toDate('2026-01-01')
                )
                AND (
                  "t4"."day" < toDate('2026-02-01')
                )
                THEN 0
                WHEN NOT (
                  "t4"."day" < toDate('2026-02-01')
                )
                AND (
                  "t4"."day" < toDate('2026-03-01')
                )
                THEN 1
                ELSE -1
              END AS "month",
              "t4"."seq" AS "place",
              "t4"."platform" AS "label"
            FROM "t3" AS "t4"
            WHERE
              (
                isNull("t4"."event_id") OR (
                  "t4"."rank_of_id" = 0
                )
              )
              AND NOT (
                "t4"."day" < toDate('2026-01-01')
              )
              AND "t4"."day" < toDate('2026-03-01')
              AND isNotNull("t4"."platform")
              AND "t4"."op" = '+'
          ) AS "t6"
        ) AS "t8"
        WHERE
          "t8"."rank" = 0
      ) AS "t11"
        ON "t13"."user" = "t11"."who"
    ) AS "t14"
  ) AS "t15"
  GROUP BY
    "t15"."part",
    "t15"."day",
    "t15"."until"
) AS "t16"
GROUP BY
  "t16"."part";

