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
          OCTET_LENGTH(TO_BINARY("t1"."user_id", 'UTF-8')) < 1
        )
        OR (
          OCTET_LENGTH(TO_BINARY("t1"."user_id", 'UTF-8')) > 256
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
          TO_BINARY("t1"."op", 'UTF-8') = TO_BINARY('+', 'UTF-8')
        )
        OR (
          TO_BINARY("t1"."op", 'UTF-8') = TO_BINARY('-', 'UTF-8')
        )
      )
      THEN 4
      WHEN "t1"."day" IS NULL
      THEN 5
      WHEN "t1"."day" < DATE_FROM_PARTS(1900, 1, 1)
      THEN 6
      WHEN NOT (
        "t1"."day" < DATE_FROM_PARTS(2026, 4, 4)
      )
      THEN 7
      WHEN "t1"."day" < DATE_FROM_PARTS(2024, 1, 23)
      THEN 8
      WHEN (
        "t1"."event_id" IS NOT NULL
      )
      AND (
        (
          OCTET_LENGTH(TO_BINARY("t1"."event_id", 'UTF-8')) < 1
        )
        OR (
          OCTET_LENGTH(TO_BINARY("t1"."event_id", 'UTF-8')) > 256
        )
      )
      THEN 9
      WHEN (
        "t1"."platform" IS NOT NULL
      )
      AND (
        (
          OCTET_LENGTH(TO_BINARY("t1"."platform", 'UTF-8')) < 1
        )
        OR (
          OCTET_LENGTH(TO_BINARY("t1"."platform", 'UTF-8')) > 64
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
      PARTITION BY TO_BINARY("t2"."user_id", 'UTF-8'), TO_BINARY("t2"."event_id", 'UTF-8')
      ORDER BY "t2"."seq" ASC, IFF(TO_BINARY("t2"."op", 'UTF-8') = TO_BINARY('+', 'UTF-8'), 0, 1) ASC, IFF("t2"."day" IS NULL, 1, 0) ASC, "t2"."day" ASC, IFF("t2"."platform" IS NULL, 1, 0) ASC, TO_BINARY("t2"."platform", 'UTF-8') ASC
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
            OCTET_LENGTH(TO_BINARY("t1"."user_id", 'UTF-8')) < 1
          )
          OR (
            OCTET_LENGTH(TO_BINARY("t1"."user_id", 'UTF-8')) > 256
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
            TO_BINARY("t1"."op", 'UTF-8') = TO_BINARY('+', 'UTF-8')
          )
          OR (
            TO_BINARY("t1"."op", 'UTF-8') = TO_BINARY('-', 'UTF-8')
          )
        )
        THEN 4
        WHEN "t1"."day" IS NULL
        THEN 5
        WHEN "t1"."day" < DATE_FROM_PARTS(1900, 1, 1)
        THEN 6
        WHEN NOT (
          "t1"."day" < DATE_FROM_PARTS(2026, 4, 4)
        )
        THEN 7
        WHEN "t1"."day" < DATE_FROM_PARTS(2024, 1, 23)
        THEN 8
        WHEN (
          "t1"."event_id" IS NOT NULL
        )
        AND (
          (
            OCTET_LENGTH(TO_BINARY("t1"."event_id", 'UTF-8')) < 1
          )
          OR (
            OCTET_LENGTH(TO_BINARY("t1"."event_id", 'UTF-8')) > 256
          )
        )
        THEN 9
        WHEN (
          "t1"."platform" IS NOT NULL
        )
        AND (
          (
            OCTET_LENGTH(TO_BINARY("t1"."platform", 'UTF-8')) < 1
          )
          OR (
            OCTET_LENGTH(TO_BINARY("t1"."platform", 'UTF-8')) > 64
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
    IFF(
      (
        "t20"."day" > -1
      ) AND (
        "t20"."day" <= 29
      ) AND (
        "t20"."until" > 29
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260201",
  SUM(
    IFF(
      (
        "t20"."day" > 0
      ) AND (
        "t20"."day" <= 30
      ) AND (
        "t20"."until" > 30
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260202",
  SUM(
    IFF(
      (
        "t20"."day" > 1
      ) AND (
        "t20"."day" <= 31
      ) AND (
        "t20"."until" > 31
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260203",
  SUM(
    IFF(
      (
        "t20"."day" > 2
      ) AND (
        "t20"."day" <= 32
      ) AND (
        "t20"."until" > 32
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260204",
  SUM(
    IFF(
      (
        "t20"."day" > 3
      ) AND (
        "t20"."day" <= 33
      ) AND (
        "t20"."until" > 33
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260205",
  SUM(
    IFF(
      (
        "t20"."day" > 4
      ) AND (
        "t20"."day" <= 34
      ) AND (
        "t20"."until" > 34
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260206",
  SUM(
    IFF(
      (
        "t20"."day" > 5
      ) AND (
        "t20"."day" <= 35
      ) AND (
        "t20"."until" > 35
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260207",
  SUM(
    IFF(
      (
        "t20"."day" > 6
      ) AND (
        "t20"."day" <= 36
      ) AND (
        "t20"."until" > 36
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260208",
  SUM(
    IFF(
      (
        "t20"."day" > 7
      ) AND (
        "t20"."day" <= 37
      ) AND (
        "t20"."until" > 37
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260209",
  SUM(
    IFF(
      (
        "t20"."day" > 8
      ) AND (
        "t20"."day" <= 38
      ) AND (
        "t20"."until" > 38
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260210",
  SUM(
    IFF(
      (
        "t20"."day" > 9
      ) AND (
        "t20"."day" <= 39
      ) AND (
        "t20"."until" > 39
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260211",
  SUM(
    IFF(
      (
        "t20"."day" > 10
      ) AND (
        "t20"."day" <= 40
      ) AND (
        "t20"."until" > 40
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260212",
  SUM(
    IFF(
      (
        "t20"."day" > 11
      ) AND (
        "t20"."day" <= 41
      ) AND (
        "t20"."until" > 41
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260213",
  SUM(
    IFF(
      (
        "t20"."day" > 12
      ) AND (
        "t20"."day" <= 42
      ) AND (
        "t20"."until" > 42
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260214",
  SUM(
    IFF(
      (
        "t20"."day" > 13
      ) AND (
        "t20"."day" <= 43
      ) AND (
        "t20"."until" > 43
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260215",
  SUM(
    IFF(
      (
        "t20"."day" > 14
      ) AND (
        "t20"."day" <= 44
      ) AND (
        "t20"."until" > 44
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260216",
  SUM(
    IFF(
      (
        "t20"."day" > 15
      ) AND (
        "t20"."day" <= 45
      ) AND (
        "t20"."until" > 45
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260217",
  SUM(
    IFF(
      (
        "t20"."day" > 16
      ) AND (
        "t20"."day" <= 46
      ) AND (
        "t20"."until" > 46
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260218",
  SUM(
    IFF(
      (
        "t20"."day" > 17
      ) AND (
        "t20"."day" <= 47
      ) AND (
        "t20"."until" > 47
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260219",
  SUM(
    IFF(
      (
        "t20"."day" > 18
      ) AND (
        "t20"."day" <= 48
      ) AND (
        "t20"."until" > 48
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260220",
  SUM(
    IFF(
      (
        "t20"."day" > 19
      ) AND (
        "t20"."day" <= 49
      ) AND (
        "t20"."until" > 49
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260221",
  SUM(
    IFF(
      (
        "t20"."day" > 20
      ) AND (
        "t20"."day" <= 50
      ) AND (
        "t20"."until" > 50
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260222",
  SUM(
    IFF(
      (
        "t20"."day" > 21
      ) AND (
        "t20"."day" <= 51
      ) AND (
        "t20"."until" > 51
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260223",
  SUM(
    IFF(
      (
        "t20"."day" > 22
      ) AND (
        "t20"."day" <= 52
      ) AND (
        "t20"."until" > 52
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260224",
  SUM(
    IFF(
      (
        "t20"."day" > 23
      ) AND (
        "t20"."day" <= 53
      ) AND (
        "t20"."until" > 53
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260225",
  SUM(
    IFF(
      (
        "t20"."day" > 24
      ) AND (
        "t20"."day" <= 54
      ) AND (
        "t20"."until" > 54
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260226",
  SUM(
    IFF(
      (
        "t20"."day" > 25
      ) AND (
        "t20"."day" <= 55
      ) AND (
        "t20"."until" > 55
      ),
      "t20"."people",
      0
    )
  ) AS "w30_20260227",
  SUM(
    IFF(
      (
        "t20"."day" > 26
      ) AND (
        "t20"."day" <= 56
      ) AND (
        "t20"."until" > 56
      ),
      "t20"."people",
      0
    )
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
          LEAD("t11"."day", 1, 57) OVER (PARTITION BY "t11"."user" ORDER BY "t11"."day" ASC) AS "until"
        FROM (
          SELECT
            "t9"."user",
            "t9"."day"
          FROM (
            SELECT
              "t7"."user",
              "t7"."day",
              COUNT_IF("t7"."adds") AS "puts",
              COUNT_IF(NOT (
                "t7"."adds"
              )) AS "takes",
              MAX(IFF("t7"."adds", "t7"."place", NULL)) AS "put_at",
              MAX(IFF(NOT (
                "t7"."adds"
              ), "t7"."place", NULL)) AS "taken_at"
            FROM (
              SELECT
                TO_BINARY("t5"."user_id", 'UTF-8') AS "user",
                CAST(DATEDIFF(DAY, DATE_FROM_PARTS(2026, 1, 3), "t5"."day") AS INT) AS "day",
                TO_BINARY("t5"."op", 'UTF-8') = TO_BINARY('+', 'UTF-8') AS "adds",
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
                    "t4"."day" < DATE_FROM_PARTS(2026, 1, 3)
                  )
                  AND "t4"."day" < DATE_FROM_PARTS(2026, 3, 1)
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
            WHEN "t15"."label" = TO_BINARY('ios', 'UTF-8')
            THEN 1
            WHEN "t15"."label" = TO_BINARY('o\'web', 'UTF-8')
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
              ) - 1 AS "rank"
            FROM (
              SELECT
                TO_BINARY("t8"."user_id", 'UTF-8') AS "who",
                CASE
                  WHEN NOT (
                    "t8"."day" < DATE_FROM_PARTS(2026, 1, 1)
                  )
                  AND (
                    "t8"."day" < DATE_FROM_PARTS(2026, 2, 1)
                  )
                  THEN 0
                  WHEN NOT (
                    "t8"."day" < DATE_FROM_PARTS(2026, 2, 1)
                  )
                  AND (
                    "t8"."day" < DATE_FROM_PARTS(2026, 3, 1)
                  )
                  THEN 1
                  ELSE -1
                END AS "month",
                "t8"."seq" AS "place",
                TO_BINARY("t8"."platform", 'UTF-8') AS "label"
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
                      "t4"."day" < DATE_FROM_PARTS(2026, 1, 1)
                    )
                    AND "t4"."day" < DATE_FROM_PARTS(2026, 3, 1)
                ) AS "t6"
                WHERE
                  "t6"."platform" IS NOT NULL
                  AND TO_BINARY("t6"."op", 'UTF-8') = TO_BINARY('+', 'UTF-8')
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

