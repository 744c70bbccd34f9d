{{ mirror_table('member_index', 'cohort', [
  'id', 'name', 'partnerId', 'goLiveDate', 'revenueGoLiveDate', 'deletedAt',
]) }}
