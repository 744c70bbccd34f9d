{{ config(tags=['evening']) }}

with tasks as (
  select
    id,
    groupId,
    goalGroupId,
    title,
    status,
    assignedToId,
    completedById,
    dueAt,
    completedAt,
    isDraft,
    isUrgent,
    createdAt,
    updatedAt,
    deletedAt,
    row_number() over (
      partition by groupId
      order by case when deletedAt is null then 0 else 1 end, updatedAt desc, id
    ) as newest
  from {{ ref('stg_commons__task') }}
)

select
  goals.mirror_date,
  {{ hash_of(['goals.id', 'tasks.groupId']) }} as id,
  goals.id as goalId,
  tasks.groupId as taskId,
  goals.patientId,
  goals.title as goalTitle,
  goals.label as goalLabel,
  goals.riskAreaSlug as goalRiskArea,
  goals.createdById as goalCreatedById,
  goals.createdAt as goalCreatedAt,
  goals.dueAt as goalDueAt,
  goals.completedAt as goalCompletedAt,
  goals.archivedAt as goalArchivedAt,
  goals.deletedAt as goalDeletedAt,
  tasks.title as taskTitle,
  tasks.status as taskStatus,
  tasks.assignedToId as taskAssignedToId,
  tasks.completedById as taskCompletedById,
  tasks.isDraft as taskIsDraft,
  tasks.isUrgent as taskIsUrgent,
  tasks.dueAt as taskDueAt,
  tasks.completedAt as taskCompletedAt,
  tasks.createdAt as taskCreatedAt,
  tasks.updatedAt as taskUpdatedAt,
  tasks.deletedAt as taskDeletedAt
from {{ ref('stg_commons__goal') }} as goals
left join tasks
  on tasks.goalGroupId = goals.id and tasks.newest = 1
where goals.title <> 'Administrative Tasks'
