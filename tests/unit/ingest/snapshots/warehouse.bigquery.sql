SELECT
  `t2`.`fault`,
  COUNT(*) AS `rows`
FROM (
  SELECT
    CASE
      WHEN `t1`.`user_id` IS NULL
      THEN 1
      WHEN (
        `t1`.`user_id` IS NOT NULL
      )
      AND (
        (
          BYTE_LENGTH(CAST(`t1`.`user_id` AS BYTES)) < 1
        )
        OR (
          BYTE_LENGTH(CAST(`t1`.`user_id` AS BYTES)) > 256
        )
      )
      THEN 2
      WHEN `t1`.`op` IS NULL
      THEN 3
      WHEN (
        `t1`.`op` IS NOT NULL
      )
      AND NOT (
        (
          CAST(`t1`.`op` AS BYTES) = CAST('+' AS BYTES)
        )
        OR (
          CAST(`t1`.`op` AS BYTES) = CAST('-' AS BYTES)
        )
      )
      THEN 4
      WHEN `t1`.`day` IS NULL
      THEN 5
      WHEN `t1`.`day` < DATE(1900, 1, 1)
      THEN 6
      WHEN NOT (
        `t1`.`day` < DATE(2026, 4, 4)
      )
      THEN 7
      WHEN `t1`.`day` < DATE(2024, 1, 23)
      THEN 8
      WHEN (
        `t1`.`event_id` IS NOT NULL
      )
      AND (
        (
          BYTE_LENGTH(CAST(`t1`.`event_id` AS BYTES)) < 1
        )
        OR (
          BYTE_LENGTH(CAST(`t1`.`event_id` AS BYTES)) > 256
        )
      )
      THEN 9
      WHEN (
        `t1`.`platform` IS NOT NULL
      )
      AND (
        (
          BYTE_LENGTH(CAST(`t1`.`platform` AS BYTES)) < 1
        )
        OR (
          BYTE_LENGTH(CAST(`t1`.`platform` AS BYTES)) > 64
        )
      )
      THEN 10
      WHEN `t1`.`seq` IS NULL
      THEN 11
      ELSE 0
    END AS `fault`
  FROM (
    SELECT
      `t0`.`user_id`,
      `t0`.`op`,
      `t0`.`day`,
      `t0`.`event_id`,
      `t0`.`seq`,
      `t0`.`platform`
    FROM `events` AS `t0`
  ) AS `t1`
) AS `t2`
GROUP BY
  1;

WITH `t3` AS (
  SELECT
    `t2`.`user_id`,
    `t2`.`op`,
    `t2`.`day`,
    `t2`.`event_id`,
    `t2`.`seq`,
    `t2`.`platform`,
    ROW_NUMBER() OVER (
      PARTITION BY CAST(`t2`.`user_id` AS BYTES), CAST(`t2`.`event_id` AS BYTES)
      ORDER BY `t2`.`seq` ASC, IF(CAST(`t2`.`op` AS BYTES) = CAST('+' AS BYTES), 0, 1) ASC, IF(`t2`.`day` IS NULL, 1, 0) ASC, `t2`.`day` ASC, IF(`t2`.`platform` IS NULL, 1, 0) ASC, CAST(`t2`.`platform` AS BYTES) ASC
    ) - 1 AS `rank_of_id`
  FROM (
    SELECT
      *
    FROM (
      SELECT
        `t0`.`user_id`,
        `t0`.`op`,
        `t0`.`day`,
        `t0`.`event_id`,
        `t0`.`seq`,
        `t0`.`platform`
      FROM `events` AS `t0`
    ) AS `t1`
    WHERE
      CASE
        WHEN `t1`.`user_id` IS NULL
        THEN 1
        WHEN (
          `t1`.`user_id` IS NOT NULL
        )
        AND (
          (
            BYTE_LENGTH(CAST(`t1`.`user_id` AS BYTES)) < 1
          )
          OR (
            BYTE_LENGTH(CAST(`t1`.`user_id` AS BYTES)) > 256
          )
        )
        THEN 2
        WHEN `t1`.`op` IS NULL
        THEN 3
        WHEN (
          `t1`.`op` IS NOT NULL
        )
        AND NOT (
          (
            CAST(`t1`.`op` AS BYTES) = CAST('+' AS BYTES)
          )
          OR (
            CAST(`t1`.`op` AS BYTES) = CAST('-' AS BYTES)
          )
        )
        THEN 4
        WHEN `t1`.`day` IS NULL
        THEN 5
        WHEN `t1`.`day` < DATE(1900, 1, 1)
        THEN 6
        WHEN NOT (
          `t1`.`day` < DATE(2026, 4, 4)
        )
        THEN 7
        WHEN `t1`.`day` < DATE(2024, 1, 23)
        THEN 8
        WHEN (
          `t1`.`event_id` IS NOT NULL
        )
        AND (
          (
            BYTE_LENGTH(CAST(`t1`.`event_id` AS BYTES)) < 1
          )
          OR (
            BYTE_LENGTH(CAST(`t1`.`event_id` AS BYTES)) > 256
          )
        )
        THEN 9
        WHEN (
          `t1`.`platform` IS NOT NULL
        )
        AND (
          (
            BYTE_LENGTH(CAST(`t1`.`platform` AS BYTES)) < 1
          )
          OR (
            BYTE_LENGTH(CAST(`t1`.`platform` AS BYTES)) > 64
          )
        )
        THEN 10
        WHEN `t1`.`seq` IS NULL
        THEN 11
        ELSE 0
      END = 0
  ) AS `t2`
)
SELECT
  `t16`.`part`,
  SUM(
    IF(
      (
        `t16`.`day` > -1
      ) AND (
        `t16`.`day` <= 29
      ) AND (
        `t16`.`until` > 29
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260201`,
  SUM(
    IF(
      (
        `t16`.`day` > 0
      ) AND (
        `t16`.`day` <= 30
      ) AND (
        `t16`.`until` > 30
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260202`,
  SUM(
    IF(
      (
        `t16`.`day` > 1
      ) AND (
        `t16`.`day` <= 31
      ) AND (
        `t16`.`until` > 31
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260203`,
  SUM(
    IF(
      (
        `t16`.`day` > 2
      ) AND (
        `t16`.`day` <= 32
      ) AND (
        `t16`.`until` > 32
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260204`,
  SUM(
    IF(
      (
        `t16`.`day` > 3
      ) AND (
        `t16`.`day` <= 33
      ) AND (
        `t16`.`until` > 33
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260205`,
  SUM(
    IF(
      (
        `t16`.`day` > 4
      ) AND (
        `t16`.`day` <= 34
      ) AND (
        `t16`.`until` > 34
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260206`,
  SUM(
    IF(
      (
        `t16`.`day` > 5
      ) AND (
        `t16`.`day` <= 35
      ) AND (
        `t16`.`until` > 35
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260207`,
  SUM(
    IF(
      (
        `t16`.`day` > 6
      ) AND (
        `t16`.`day` <= 36
      ) AND (
        `t16`.`until` > 36
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260208`,
  SUM(
    IF(
      (
        `t16`.`day` > 7
      ) AND (
        `t16`.`day` <= 37
      ) AND (
        `t16`.`until` > 37
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260209`,
  SUM(
    IF(
      (
        `t16`.`day` > 8
      ) AND (
        `t16`.`day` <= 38
      ) AND (
        `t16`.`until` > 38
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260210`,
  SUM(
    IF(
      (
        `t16`.`day` > 9
      ) AND (
        `t16`.`day` <= 39
      ) AND (
        `t16`.`until` > 39
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260211`,
  SUM(
    IF(
      (
        `t16`.`day` > 10
      ) AND (
        `t16`.`day` <= 40
      ) AND (
        `t16`.`until` > 40
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260212`,
  SUM(
    IF(
      (
        `t16`.`day` > 11
      ) AND (
        `t16`.`day` <= 41
      ) AND (
        `t16`.`until` > 41
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260213`,
  SUM(
    IF(
      (
        `t16`.`day` > 12
      ) AND (
        `t16`.`day` <= 42
      ) AND (
        `t16`.`until` > 42
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260214`,
  SUM(
    IF(
      (
        `t16`.`day` > 13
      ) AND (
        `t16`.`day` <= 43
      ) AND (
        `t16`.`until` > 43
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260215`,
  SUM(
    IF(
      (
        `t16`.`day` > 14
      ) AND (
        `t16`.`day` <= 44
      ) AND (
        `t16`.`until` > 44
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260216`,
  SUM(
    IF(
      (
        `t16`.`day` > 15
      ) AND (
        `t16`.`day` <= 45
      ) AND (
        `t16`.`until` > 45
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260217`,
  SUM(
    IF(
      (
        `t16`.`day` > 16
      ) AND (
        `t16`.`day` <= 46
      ) AND (
        `t16`.`until` > 46
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260218`,
  SUM(
    IF(
      (
        `t16`.`day` > 17
      ) AND (
        `t16`.`day` <= 47
      ) AND (
        `t16`.`until` > 47
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260219`,
  SUM(
    IF(
      (
        `t16`.`day` > 18
      ) AND (
        `t16`.`day` <= 48
      ) AND (
        `t16`.`until` > 48
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260220`,
  SUM(
    IF(
      (
        `t16`.`day` > 19
      ) AND (
        `t16`.`day` <= 49
      ) AND (
        `t16`.`until` > 49
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260221`,
  SUM(
    IF(
      (
        `t16`.`day` > 20
      ) AND (
        `t16`.`day` <= 50
      ) AND (
        `t16`.`until` > 50
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260222`,
  SUM(
    IF(
      (
        `t16`.`day` > 21
      ) AND (
        `t16`.`day` <= 51
      ) AND (
        `t16`.`until` > 51
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260223`,
  SUM(
    IF(
      (
        `t16`.`day` > 22
      ) AND (
        `t16`.`day` <= 52
      ) AND (
        `t16`.`until` > 52
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260224`,
  SUM(
    IF(
      (
        `t16`.`day` > 23
      ) AND (
        `t16`.`day` <= 53
      ) AND (
        `t16`.`until` > 53
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260225`,
  SUM(
    IF(
      (
        `t16`.`day` > 24
      ) AND (
        `t16`.`day` <= 54
      ) AND (
        `t16`.`until` > 54
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260226`,
  SUM(
    IF(
      (
        `t16`.`day` > 25
      ) AND (
        `t16`.`day` <= 55
      ) AND (
        `t16`.`until` > 55
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260227`,
  SUM(
    IF(
      (
        `t16`.`day` > 26
      ) AND (
        `t16`.`day` <= 56
      ) AND (
        `t16`.`until` > 56
      ),
      `t16`.`people`,
      0
    )
  ) AS `w30_20260228`
FROM (
  SELECT
    `t15`.`part`,
    `t15`.`day`,
    `t15`.`until`,
    COUNT(*) AS `people`
  FROM (
    SELECT
      `t14`.`user`,
      `t14`.`day`,
      `t14`.`until`,
      `t14`.`who`,
      COALESCE(`t14`.`part`, 0) AS `part`
    FROM (
      SELECT
        `t13`.`user`,
        `t13`.`day`,
        `t13`.`until`,
        `t11`.`who`,
        `t11`.`part`
      FROM (
        SELECT
          `t9`.`user`,
          `t9`.`day`,
          LEAD(`t9`.`day`, 1, 57) OVER (PARTITION BY `t9`.`user` ORDER BY `t9`.`day` ASC) AS `until`
        FROM (
          SELECT
            `t7`.`user`,
            `t7`.`day`
          FROM (
            SELECT
              `t5`.`user`,
              `t5`.`day`,
              COUNTIF(`t5`.`adds`) AS `puts`,
              COUNTIF(NOT (
                `t5`.`adds`
              )) AS `takes`,
              MAX(IF(`t5`.`adds`, `t5`.`place`, NULL)) AS `put_at`,
              MAX(IF(NOT (
                `t5`.`adds`
              ), `t5`.`place`, NULL)) AS `taken_at`
            FROM (
              SELECT
                CAST(`t4`.`user_id` AS BYTES) AS `user`,
                CAST(DATE_DIFF(`t4`.`day`, DATE(2026, 1, 3), DAY) AS INT64) AS `day`,
                CAST(`t4`.`op` AS BYTES) = CAST('+' AS BYTES) AS `adds`,
                `t4`.`seq` AS `place`
              FROM `t3` AS `t4`
              WHERE
                (
                  (
                    `t4`.`event_id` IS NULL
                  ) OR (
                    `t4`.`rank_of_id` = 0
                  )
                )
                AND NOT (
                  `t4`.`day` < DATE(2026, 1, 3)
                )
                AND `t4`.`day` < DATE(2026, 3, 1)
            ) AS `t5`
            GROUP BY
              1,
              2
          ) AS `t7`
          WHERE
            `t7`.`puts` > 0
            AND (
              (
                `t7`.`takes` = 0
              ) OR (
                `t7`.`put_at` > `t7`.`taken_at`
              )
            )
        ) AS `t9`
      ) AS `t13`
      LEFT OUTER JOIN (
        SELECT
          `t8`.`who`,
          CASE
            WHEN `t8`.`label` = CAST('ios' AS BYTES)
            THEN 1
            WHEN `t8`.`label` = CAST('o\'web' AS BYTES)
            THEN 2
            ELSE 0
          END AS `part`
        FROM (
          SELECT
            `t6`.`who`,
            `t6`.`month`,
            `t6`.`place`,
            `t6`.`label`,
            ROW_NUMBER() OVER (
              PARTITION BY `t6`.`who`
              ORDER BY `t6`.`month` DESC, `t6`.`place` ASC, `t6`.`label` ASC
            ) - 1 AS `rank`
          FROM (
            SELECT
              CAST(`t4`.`user_id` AS BYTES) AS `who`,
              CASE
                WHEN NOT (
                  `t4`.`day` < DATE(2026, 1, 1)
                ) AND (
                  `t4`.`day` < DATE(2026, 2, 1)
                )
                THEN 0
                WHEN NOT (
                  `t4`.`day` < DATE(2026, 2, 1)
                ) AND (
                  `t4`.`day` < DATE(2026, 3, 1)
                )
                THEN 1
                ELSE -1
              END AS `month`,
              `t4`.`seq` AS `place`,
              CAST(`t4`.`platform` AS BYTES) AS `label`
            FROM `t3` AS `t4`
            WHERE
              (
                (
                  `t4`.`event_id` IS NULL
                ) OR (
                  `t4`.`rank_of_id` = 0
                )
              )
              AND NOT (
                `t4`.`day` < DATE(2026, 1, 1)
              )
              AND `t4`.`day` < DATE(2026, 3, 1)
              AND `t4`.`platform` IS NOT NULL
              AND CAST(`t4`.`op` AS BYTES) = CAST('+' AS BYTES)
          ) AS `t6`
        ) AS `t8`
        WHERE
          `t8`.`rank` = 0
      ) AS `t11`
        ON `t13`.`user` = `t11`.`who`
    ) AS `t14`
  ) AS `t15`
  GROUP BY
    1,
    2,
    3
) AS `t16`
GROUP BY
  1;

