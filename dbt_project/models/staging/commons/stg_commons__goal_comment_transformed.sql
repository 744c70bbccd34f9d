{{ mirror_table('commons', 'goal_comment_transformed', [
  'id', 'goalId', 'createdById', 'text', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
