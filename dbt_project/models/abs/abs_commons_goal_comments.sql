select mirror_date, id, goalId, createdById, text as commentText, createdAt, updatedAt
from {{ ref('stg_commons__goal_comment_transformed') }}
where deletedAt is null
