SELECT
  "t2"."fault",
  COUNT(*) AS "rows"
FROM (
  SELECT
    CASE
      WHEN "t1"."user_id" IS NULL
      THEN 1
      WHEN (
        "t1"."user_id" IS NOT NULL
      )
      AND (
        (
          OCTET_LENGTH(CONVERT_TO("t1"."user_id", 'UTF8')) < 1
        )
        OR (
          OCTET_LENGTH(CONVERT_TO("t1"."user_id", 'UTF8')) > 256
        )
      )
      THEN 2
      WHEN "t1"."op" IS NULL
      THEN 3
      WHEN (
        "t1"."op" IS NOT NULL
      )
      AND NOT (
        (
          CONVERT_TO("t1"."op", 'UTF8') = CONVERT_TO('+', 'UTF8')
        )
        OR (
          CONVERT_TO("t1"."op", 'UTF8') = CONVERT_TO('-', 'UTF8')
        )
      )
      THEN 4
      WHEN "t1"."day" IS NULL
      THEN 5
      WHEN "t1"."day" < MAKE_DATE(1900, 1, 1)
      THEN 6
      WHEN NOT (
        "t1"."day" < MAKE_DATE(2026, 4, 4)
      )
      THEN 7
      WHEN "t1"."day" < MAKE_DATE(2024, 1, 23)
      THEN 8
      WHEN (
        "t1"."event_id" IS NOT NULL
      )
      AND (
        (
          OCTET_LENGTH(CONVERT_TO("t1"."event_id", 'UTF8')) < 1
        )
        OR (
          OCTET_LENGTH(CONVERT_TO("t1"."event_id", 'UTF8')) > 256
        )
      )
      THEN 9
      WHEN (
        "t1"."platform" IS NOT NULL
      )
      AND (
        (
          OCTET_LENGTH(CONVERT_TO("t1"."platform", 'UTF8')) < 1
        )
        OR (
          OCTET_LENGTH(CONVERT_TO("t1"."platform", 'UTF8')) > 64
        )
      )
      THEN 10
      WHEN "t1"."seq" IS NULL
      THEN 11
      ELSE 0
    END AS "fault"
  FROM (
    SELECT
      "t0"."user_id",
      "t0"."op",
      "t0"."day",
      "t0"."event_id",
      "t0"."seq",
      "t0"."platform"
    FROM "events" AS "t0"
  ) AS "t1"
) AS "t2"
GROUP BY
  1;

WITH "t3" AS (
  SELECT
    "t2"."user_id",
    "t2"."op",
    "t2"."day",
    "t2"."event_id",
    "t2"."seq",
    "t2"."platform",
    ROW_NUMBER() OVER (
      PARTITION BY CONVERT_TO("t2"."user_id", 'UTF8'), CONVERT_TO("t2"."event_id", 'UTF8')
      ORDER BY "t2"."seq" ASC, CASE WHEN CONVERT_TO("t2"."op", 'UTF8') = CONVERT_TO('+', 'UTF8') THEN 0 ELSE 1 END ASC, CASE WHEN "t2"."day" IS NULL THEN 1 ELSE 0 END ASC, "t2"."day" ASC, CASE WHEN "t2"."platform" IS NULL THEN 1 ELSE 0 END ASC, CONVERT_TO("t2"."platform", 'UTF8') ASC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "rank_of_id"
  FROM (
    SELECT
      *
    FROM (
      SELECT
        "t0"."user_id",
        "t0"."op",
        "t0"."day",
        "t0"."event_id",
        "t0"."seq",
        "t0"."platform"
      FROM "events" AS "t0"
    ) AS "t1"
    WHERE
      CASE
        WHEN "t1"."user_id" IS NULL
        THEN 1
        WHEN (
          "t1"."user_id" IS NOT NULL
        )
        AND (
          (
            OCTET_LENGTH(CONVERT_TO("t1"."user_id", 'UTF8')) < 1
          )
          OR (
            OCTET_LENGTH(CONVERT_TO("t1"."user_id", 'UTF8')) > 256
          )
        )
        THEN 2
        WHEN "t1"."op" IS NULL
        THEN 3
        WHEN (
          "t1"."op" IS NOT NULL
        )
        AND NOT (
          (
            CONVERT_TO("t1"."op", 'UTF8') = CONVERT_TO('+', 'UTF8')
          )
          OR (
            CONVERT_TO("t1"."op", 'UTF8') = CONVERT_TO('-', 'UTF8')
          )
        )
        THEN 4
        WHEN "t1"."day" IS NULL
        THEN 5
        WHEN "t1"."day" < MAKE_DATE(1900, 1, 1)
        THEN 6
        WHEN NOT (
          "t1"."day" < MAKE_DATE(2026, 4, 4)
        )
        THEN 7
        WHEN "t1"."day" < MAKE_DATE(2024, 1, 23)
        THEN 8
        WHEN (
          "t1"."event_id" IS NOT NULL
        )
        AND (
          (
            OCTET_LENGTH(CONVERT_TO("t1"."event_id", 'UTF8')) < 1
          )
          OR (
            OCTET_LENGTH(CONVERT_TO("t1"."event_id", 'UTF8')) > 256
          )
        )
        THEN 9
        WHEN (
          "t1"."platform" IS NOT NULL
        )
        AND (
          (
            OCTET_LENGTH(CONVERT_TO("t1"."platform", 'UTF8')) < 1
          )
          OR (
            OCTET_LENGTH(CONVERT_TO("t1"."platform", 'UTF8')) > 64
          )
        )
        THEN 10
        WHEN "t1"."seq" IS NULL
        THEN 11
        ELSE 0
      END = 0
  ) AS "t2"
)
SELECT
  "t20"."part",
  SUM(
    CASE
      WHEN (
        "t20"."day" > -1
      ) AND (
        "t20"."day" <= 29
      ) AND (
        "t20"."until" > 29
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260201",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 0
      ) AND (
        "t20"."day" <= 30
      ) AND (
        "t20"."until" > 30
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260202",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 1
      ) AND (
        "t20"."day" <= 31
      ) AND (
        "t20"."until" > 31
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260203",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 2
      ) AND (
        "t20"."day" <= 32
      ) AND (
        "t20"."until" > 32
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260204",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 3
      ) AND (
        "t20"."day" <= 33
      ) AND (
        "t20"."until" > 33
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260205",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 4
      ) AND (
        "t20"."day" <= 34
      ) AND (
        "t20"."until" > 34
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260206",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 5
      ) AND (
        "t20"."day" <= 35
      ) AND (
        "t20"."until" > 35
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260207",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 6
      ) AND (
        "t20"."day" <= 36
      ) AND (
        "t20"."until" > 36
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260208",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 7
      ) AND (
        "t20"."day" <= 37
      ) AND (
        "t20"."until" > 37
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260209",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 8
      ) AND (
        "t20"."day" <= 38
      ) AND (
        "t20"."until" > 38
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260210",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 9
      ) AND (
        "t20"."day" <= 39
      ) AND (
        "t20"."until" > 39
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260211",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 10
      ) AND (
        "t20"."day" <= 40
      ) AND (
        "t20"."until" > 40
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260212",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 11
      ) AND (
        "t20"."day" <= 41
      ) AND (
        "t20"."until" > 41
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260213",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 12
      ) AND (
        "t20"."day" <= 42
      ) AND (
        "t20"."until" > 42
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260214",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 13
      ) AND (
        "t20"."day" <= 43
      ) AND (
        "t20"."until" > 43
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260215",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 14
      ) AND (
        "t20"."day" <= 44
      ) AND (
        "t20"."until" > 44
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260216",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 15
      ) AND (
        "t20"."day" <= 45
      ) AND (
        "t20"."until" > 45
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260217",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 16
      ) AND (
        "t20"."day" <= 46
      ) AND (
        "t20"."until" > 46
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260218",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 17
      ) AND (
        "t20"."day" <= 47
      ) AND (
        "t20"."until" > 47
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260219",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 18
      ) AND (
        "t20"."day" <= 48
      ) AND (
        "t20"."until" > 48
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260220",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 19
      ) AND (
        "t20"."day" <= 49
      ) AND (
        "t20"."until" > 49
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260221",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 20
      ) AND (
        "t20"."day" <= 50
      ) AND (
        "t20"."until" > 50
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260222",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 21
      ) AND (
        "t20"."day" <= 51
      ) AND (
        "t20"."until" > 51
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260223",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 22
      ) AND (
        "t20"."day" <= 52
      ) AND (
        "t20"."until" > 52
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260224",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 23
      ) AND (
        "t20"."day" <= 53
      ) AND (
        "t20"."until" > 53
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260225",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 24
      ) AND (
        "t20"."day" <= 54
      ) AND (
        "t20"."until" > 54
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260226",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 25
      ) AND (
        "t20"."day" <= 55
      ) AND (
        "t20"."until" > 55
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260227",
  SUM(
    CASE
      WHEN (
        "t20"."day" > 26
      ) AND (
        "t20"."day" <= 56
      ) AND (
        "t20"."until" > 56
      )
      THEN "t20"."people"
      ELSE 0
    END
  ) AS "w30_20260228"
FROM (
  SELECT
    "t19"."part",
    "t19"."day",
    "t19"."until",
    COUNT(*) AS "people"
  FROM (
    SELECT
      "t18"."user",
      "t18"."day",
      "t18"."until",
      "t18"."who",
      COALESCE("t18"."part", 0) AS "part"
    FROM (
      SELECT
        "t14"."user",
        "t14"."day",
        "t14"."until",
        "t17"."who",
        "t17"."part"
      FROM (
        SELECT
          "t11"."user",
          "t11"."day",
          LEAD("t11"."day", 1, 57) OVER (
            PARTITION BY "t11"."user"
            ORDER BY "t11"."day" ASC
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
          ) AS "until"
        FROM (
          SELECT
            "t9"."user",
            "t9"."day"
          FROM (
            SELECT
              "t7"."user",
              "t7"."day",
              COUNT(*) FILTER(WHERE
                "t7"."adds") AS "puts",
              COUNT(*) FILTER(WHERE
                NOT (
                  "t7"."adds"
                )) AS "takes",
              MAX("t7"."place") FILTER(WHERE
                "t7"."adds") AS "put_at",
              MAX("t7"."place") FILTER(WHERE
                NOT (
                  "t7"."adds"
                )) AS "taken_at"
            FROM (
              SELECT
                CONVERT_TO("t5"."user_id", 'UTF8') AS "user",
                CAST(CAST(EXTRACT(epoch FROM CAST("t5"."day" AS TIMESTAMP) - CAST(MAKE_DATE(2026, 1, 3) AS TIMESTAMP)) / 86400 AS BIGINT) AS INT) AS "day",
                CONVERT_TO("t5"."op", 'UTF8') = CONVERT_TO('+', 'UTF8') AS "adds",
                "t5"."seq" AS "place"
              FROM (
                SELECT
                  *
                FROM "t3" AS "t4"
                WHERE
                  (
                    (
                      "t4"."event_id" IS NULL
                    ) OR (
                      "t4"."rank_of_id" = 0
                    )
                  )
                  AND NOT (
                    "t4"."day" < MAKE_DATE(2026, 1, 3)
                  )
                  AND "t4"."day" < MAKE_DATE(2026, 3, 1)
              ) AS "t5"
            ) AS "t7"
            GROUP BY
              1,
              2
          ) AS "t9"
          WHERE
            "t9"."puts" > 0
            AND (
              (
                "t9"."takes" = 0
              ) OR (
                "t9"."put_at" > "t9"."taken_at"
              )
            )
        ) AS "t11"
      ) AS "t14"
      LEFT OUTER JOIN (
        SELECT
          "t15"."who",
          CASE
            WHEN "t15"."label" = CONVERT_TO('ios', 'UTF8')
            THEN 1
            WHEN "t15"."label" = CONVERT_TO('o''web', 'UTF8')
            THEN 2
            ELSE 0
          END AS "part"
        FROM (
          SELECT
            *
          FROM (
            SELECT
              "t10"."who",
              "t10"."month",
              "t10"."place",
              "t10"."label",
              ROW_NUMBER() OVER (
                PARTITION BY "t10"."who"
                ORDER BY "t10"."month" DESC NULLS LAST, "t10"."place" ASC, "t10"."label" ASC
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
              ) - 1 AS "rank"
            FROM (
              SELECT
                CONVERT_TO("t8"."user_id", 'UTF8') AS "who",
                CASE
                  WHEN NOT (
                    "t8"."day" < MAKE_DATE(2026, 1, 1)
                  )
                  AND (
                    "t8"."day" < MAKE_DATE(2026, 2, 1)
                  )
                  THEN 0
                  WHEN NOT (
                    "t8"."day" < MAKE_DATE(2026, 2, 1)
                  )
                  AND (
                    "t8"."day" < MAKE_DATE(2026, 3, 1)
                  )
                  THEN 1
                  ELSE -1
                END AS "month",
                "t8"."seq" AS "place",
                CONVERT_TO("t8"."platform", 'UTF8') AS "label"
              FROM (
                SELECT
                  *
                FROM (
                  SELECT
                    *
                  FROM "t3" AS "t4"
                  WHERE
                    (
                      (
                        "t4"."event_id" IS NULL
                      ) OR (
                        "t4"."rank_of_id" = 0
                      )
                    )
                    AND NOT (
                      "t4"."day" < MAKE_DATE(2026, 1, 1)
                    )
                    AND "t4"."day" < MAKE_DATE(2026, 3, 1)
                ) AS "t6"
                WHERE
                  "t6"."platform" IS NOT NULL
                  AND CONVERT_TO("t6"."op", 'UTF8') = CONVERT_TO('+', 'UTF8')
              ) AS "t8"
            ) AS "t10"
          ) AS "t12"
          WHERE
            "t12"."rank" = 0
        ) AS "t15"
      ) AS "t17"
        ON "t14"."user" = "t17"."who"
    ) AS "t18"
  ) AS "t19"
  GROUP BY
    1,
    2,
    3
) AS "t20"
GROUP BY
  1;

