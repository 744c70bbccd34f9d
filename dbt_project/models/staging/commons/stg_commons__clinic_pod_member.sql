{{ mirror_table('commons', 'clinic_pod_member', [
  'userId', 'clinicPodId', 'createdAt', 'deletedAt',
]) }}
